"""VideoMAE (arXiv:2203.12602), as Hugging Face has it: joint attention of all tubelets, without a class token."""

from __future__ import annotations

from vivit_export.anatomy import Anatomy, Attention, Pooling
from vivit_export.contract import Clip
from vivit_export.errors import CheckpointError
from vivit_export.families.family import Family, TapPoint, sides, whole_numbers
from vivit_export.families.vivit import stack_taps
from vivit_export.records import JsonObject, shown

_STACK = "encoder.layer"


class VideoMae(Family):
    """``VideoMAEForVideoClassification``, ``VideoMAEModel``."""

    model_type = "videomae"
    title = "VideoMAE"
    classifier = "VideoMAEForVideoClassification"
    encoder = "VideoMAEModel"
    base = "videomae"
    anchor = "embeddings.patch_embeddings.projection.weight"
    processor = "VideoMAEImageProcessor"
    sampling = "--sampling stride --stride 4 --views 5x3"  # on Kinetics; section 4.1

    def clip(self, config: JsonObject, origin: str) -> Clip:
        """See `Family.clip`; fields that are missing take ``VideoMAEConfig``'s defaults."""
        height, width = sides(config, "image_size", 224, origin)
        h, w = sides(config, "patch_size", 16, origin)
        (t,) = whole_numbers([config.get("tubelet_size", 2)], 1, "tubelet_size", origin)
        (num_frames,) = whole_numbers([config.get("num_frames", 16)], 1, "num_frames", origin)
        return Clip(num_frames=num_frames, height=height, width=width, tubelet_size=(t, h, w))

    def anatomy(self, config: JsonObject, clip: Clip) -> Anatomy:
        """See `Family.anatomy`: all tubelets attend to each other."""
        pooling: Pooling = "mean" if pools_by_mean(config) else "class-token"
        return self.joint_anatomy(config, _STACK, Attention("attention.attention", clip.num_tubelets), pooling)

    def taps(self, config: JsonObject) -> tuple[TapPoint, ...]:
        """See `Family.taps`."""
        norm = "layernorm" if not pools_by_mean(config) else "fc_norm" if self.has_head(config) else None
        taps = stack_taps(_STACK, self.size(config, "num_hidden_layers"), norm, mlp=("intermediate", "output"))
        return (*taps, *([TapPoint("final norm", (norm,), norm, True)] if norm else []))

    def require(self, config: JsonObject, origin: str) -> None:
        """See `Family.require`."""
        for name in ("use_mean_pooling", "qv_bias"):
            if type(config.get(name, True)) is not bool:
                raise CheckpointError(f"{origin}: {name} must be true or false, got {shown(config[name])}")


def pools_by_mean(config: JsonObject) -> bool:
    """Return whether the classifier reads the mean of all tokens, and not the first of them."""
    return bool(config.get("use_mean_pooling", True))
