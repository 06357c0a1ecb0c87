"""ViViT with joint space-time attention (arXiv:2103.15691, model 1), as Hugging Face has it."""

from __future__ import annotations

from vivit_export.anatomy import Anatomy, Attention
from vivit_export.contract import Clip
from vivit_export.families.family import Family, TapPoint, sides, whole_numbers
from vivit_export.records import JsonObject


class Vivit(Family):
    """``VivitForVideoClassification``, ``VivitModel``."""

    model_type = "vivit"
    title = "ViViT"
    classifier = "VivitForVideoClassification"
    encoder = "VivitModel"
    base = "vivit"
    anchor = "embeddings.cls_token"

    def clip(self, config: JsonObject, origin: str) -> Clip:
        """See `Family.clip`; fields that are missing take ``VivitConfig``'s defaults."""
        height, width = sides(config, "image_size", 224, origin)
        tubelet = config.get("tubelet_size", [2, 16, 16])
        t, h, w = whole_numbers(tubelet if isinstance(tubelet, list) else [tubelet], 3, "tubelet_size", origin)
        (num_frames,) = whole_numbers([config.get("num_frames", 32)], 1, "num_frames", origin)
        return Clip(num_frames=num_frames, height=height, width=width, tubelet_size=(t, h, w))

    def anatomy(self, config: JsonObject, clip: Clip) -> Anatomy:
        """See `Family.anatomy`: all tubelets and the class token attend to each other."""
        return self.joint_anatomy(config, "layers", Attention("attention", clip.num_tubelets + 1), "class-token")

    def taps(self, config: JsonObject) -> tuple[TapPoint, ...]:
        """See `Family.taps`."""
        blocks = self.size(config, "num_hidden_layers")
        return (*stack_taps("layers", blocks, "layernorm"), TapPoint("final norm", ("layernorm",), "layernorm", True))


def stack_taps(
    path: str,
    blocks: int,
    after: str | None,
    prefix: str = "",
    embeddings: str = "embeddings",
    attention: str = "attention",
    mlp: tuple[str, ...] = ("mlp",),
    norms: tuple[str, str] = ("layernorm_before", "layernorm_after"),
) -> list[TapPoint]:
    """Return the taps of blocks with one attention and one MLP each, as all of Hugging Face's descendants of ViT are.

    Args:
        path: of the stack.
        blocks: how many.
        after: module path of the LayerNormalization that reads what the last block puts out; None: there is none.
        prefix: what distinguishes the stack for people, such as ``"spatial "``.
        embeddings: module path of what makes the tokens.
        attention: module path of attention inside its block.
        mlp: beginnings of the module paths of an MLP inside its block.
        norms: names of the LayerNormalizations before the two, inside their block.
    """
    before, between = norms
    taps = [TapPoint(f"{prefix}embeddings", (embeddings,), f"{path}.0.{before}")]
    for i in range(blocks):
        following = f"{path}.{i + 1}.{before}" if i + 1 < blocks else after
        block = f"{path}.{i}"
        taps.append(TapPoint(f"{prefix}layer {i} attention", (f"{block}.{attention}",), f"{block}.{between}"))
        if following is not None:
            taps.append(TapPoint(f"{prefix}layer {i} MLP", tuple(f"{block}.{part}" for part in mlp), following))
    return taps
