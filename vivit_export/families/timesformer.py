"""TimeSformer with divided space-time attention (arXiv:2102.05095), as Hugging Face has it."""

from __future__ import annotations

from vivit_export.anatomy import Anatomy, Attention, Stack, block_flops
from vivit_export.contract import Clip
from vivit_export.errors import CheckpointError
from vivit_export.families.family import Family, TapPoint, sides, whole_numbers
from vivit_export.records import JsonObject, shown

_STACK = "encoder.layer"
_DIVIDED = "divided_space_time"


class Timesformer(Family):
    """``TimesformerForVideoClassification``, ``TimesformerModel``."""

    model_type = "timesformer"
    title = "TimeSformer"
    classifier = "TimesformerForVideoClassification"
    encoder = "TimesformerModel"
    base = "timesformer"
    anchor = "embeddings.cls_token"
    processor = "VideoMAEImageProcessor"
    sampling = "--sampling stride --stride 32 --views 1x3"  # 8 frames on Kinetics; section 4

    def clip(self, config: JsonObject, origin: str) -> Clip:
        """See `Family.clip`; fields that are missing take ``TimesformerConfig``'s defaults."""
        height, width = sides(config, "image_size", 224, origin)
        h, w = sides(config, "patch_size", 16, origin)
        (num_frames,) = whole_numbers([config.get("num_frames", 8)], 1, "num_frames", origin)
        return Clip(num_frames=num_frames, height=height, width=width, tubelet_size=(1, h, w))

    def anatomy(self, config: JsonObject, clip: Clip) -> Anatomy:
        """See `Family.anatomy`: a patch attends to itself in other frames, then to its frame and the class token."""
        blocks, patches = self.size(config, "num_hidden_layers"), clip.num_tubelets // clip.num_frames
        attentions = (
            Attention("temporal_attention.attention", clip.num_frames, patches),
            Attention("attention.attention", patches + 1, clip.num_frames),
        )
        flops = block_flops(
            rows=clip.num_tubelets + 1,
            hidden=self.size(config, "hidden_size"),
            inner=self.size(config, "intermediate_size"),
            attentions=attentions,
            extra=1,  # temporal_dense
        )
        return Anatomy(
            stacks=(Stack(_STACK, blocks, attentions, linears=11),),
            heads=self.size(config, "num_attention_heads"),
            tokens=clip.num_tubelets + clip.num_frames,  # each frame has the class token to itself
            pooling="class-token",
            flops=blocks * flops,
        )

    def taps(self, config: JsonObject) -> tuple[TapPoint, ...]:
        """See `Family.taps`; the taps before temporal attention lack the class token, which takes no part in it."""
        blocks = self.size(config, "num_hidden_layers")
        taps = [TapPoint("embeddings", ("embeddings",), f"{_STACK}.0.temporal_layernorm")]
        for i in range(blocks):
            block, last = f"{_STACK}.{i}", i + 1 == blocks
            following = "layernorm" if last else f"{_STACK}.{i + 1}.temporal_layernorm"
            taps += [
                TapPoint(
                    f"layer {i} temporal attention",
                    (f"{block}.temporal_attention", f"{block}.temporal_dense"),
                    f"{block}.layernorm_before",
                ),
                TapPoint(f"layer {i} attention", (f"{block}.attention",), f"{block}.layernorm_after"),
                TapPoint(f"layer {i} MLP", (f"{block}.intermediate", f"{block}.output"), following),
            ]
        return (*taps, TapPoint("final norm", ("layernorm",), "layernorm", True))

    def require(self, config: JsonObject, origin: str) -> None:
        """See `Family.require`: the other kinds of attention have no published checkpoints."""
        kind = config.get("attention_type", _DIVIDED)
        if kind != _DIVIDED:
            raise CheckpointError(
                f"{origin}: attention_type {shown(kind)} is not supported; TimeSformer is exported with {_DIVIDED}"
            )
        if type(config.get("qkv_bias", True)) is not bool:
            raise CheckpointError(f"{origin}: qkv_bias must be true or false, got {shown(config['qkv_bias'])}")
        if isinstance(config.get("image_size", 224), list) or isinstance(config.get("patch_size", 16), list):
            # TimesformerLayer divides one by the other.
            raise CheckpointError(f"{origin}: image_size and patch_size of a TimeSformer must be one number each")
