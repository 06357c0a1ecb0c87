"""V-JEPA 2 (arXiv:2506.09985), as Hugging Face has it: rotary positions, and a classifier that pools by attention."""

from __future__ import annotations

import math

from vivit_export.anatomy import Anatomy, Attention, Stack, block_flops
from vivit_export.contract import Clip
from vivit_export.errors import CheckpointError
from vivit_export.families.family import Family, TapPoint, whole_numbers
from vivit_export.families.vivit import stack_taps
from vivit_export.limits import MOST_WIDTH
from vivit_export.records import JsonObject, shown

_STACK = "encoder.layer"
_POOLER = "pooler.self_attention_layers"
_PROBE = "pooler.cross_attention_layer"
_POOLER_RATIO = 4  # VJEPA2MLP's default, which the pooler takes whatever mlp_ratio is


class VJepa2(Family):
    """``VJEPA2ForVideoClassification``, and ``VJEPA2Model`` without its predictor."""

    model_type = "vjepa2"
    title = "V-JEPA 2"
    classifier = "VJEPA2ForVideoClassification"
    encoder = "VJEPA2Model"
    base = "vjepa2"
    anchor = "encoder.embeddings.patch_embeddings.proj.weight"
    sizes = {  # noqa: RUF012 - annotated in `Family`
        "hidden_size": 1024,
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
        "num_pooler_layers": 3,
    }
    processor = "VJEPA2VideoProcessor"
    # On Something-Something v2, as the evaluation ssv2-vitg16-384-64x2x3 of facebookresearch/vjepa2 has it.
    sampling = "--sampling stride --stride 2 --views 2x3"

    def clip(self, config: JsonObject, origin: str) -> Clip:
        """See `Family.clip`; fields that are missing take ``VJEPA2Config``'s defaults."""
        fields = {"crop_size": 256, "patch_size": 16, "tubelet_size": 2, "frames_per_clip": 64}
        found = (whole_numbers([config.get(name, default)], 1, name, origin)[0] for name, default in fields.items())
        side, patch, t, num_frames = found
        return Clip(num_frames=num_frames, height=side, width=side, tubelet_size=(t, patch, patch))

    def anatomy(self, config: JsonObject, clip: Clip) -> Anatomy:
        """See `Family.anatomy`: all tubelets attend to each other, in the encoder and then in the pooler.

        The pooler's last layer, in which one learned query attends to the tokens, belongs to the classifier.
        """
        hidden, blocks = self.size(config, "hidden_size"), self.size(config, "num_hidden_layers")
        attention, pooler = Attention("attention", clip.num_tubelets), Attention("self_attn", clip.num_tubelets)
        stacks, flops = [Stack(_STACK, blocks, (attention,), linears=6)], 0
        inner = {_STACK: _inner(config), _POOLER: _POOLER_RATIO * hidden}
        if self.has_head(config):
            stacks.append(Stack(_POOLER, self.size(config, "num_pooler_layers"), (pooler,), linears=6))
        for stack in stacks:
            flops += stack.blocks * block_flops(
                rows=clip.num_tubelets, hidden=hidden, inner=inner[stack.path], attentions=stack.attentions
            )
        return Anatomy(
            stacks=tuple(stacks),
            heads=self.size(config, "num_attention_heads"),
            tokens=clip.num_tubelets,
            pooling="attention" if self.has_head(config) else "mean",
            flops=flops,
        )

    def taps(self, config: JsonObject) -> tuple[TapPoint, ...]:
        """See `Family.taps`: also through the pooler, up to the MLP of its last layer."""
        blocks, norm = self.size(config, "num_hidden_layers"), "encoder.layernorm"
        taps = stack_taps(_STACK, blocks, norm, embeddings="encoder.embeddings", norms=("norm1", "norm2"))
        taps.append(TapPoint("final norm", (norm,), norm, True))
        if self.has_head(config):
            layers, norms = self.size(config, "num_pooler_layers"), ("layer_norm1", "layer_norm2")
            after = f"{_PROBE}.layer_norm1"
            _, *pooler = stack_taps(_POOLER, layers, after, "pooler ", attention="self_attn", norms=norms)
            taps += [*pooler, TapPoint("pooling", (f"{_PROBE}.cross_attn",), f"{_PROBE}.layer_norm2")]
        return tuple(taps)

    def implied_numbers(self, config: JsonObject, clip: Clip) -> int:
        """See `Family.implied_numbers`; there is no table of positions."""
        hidden, blocks = self.size(config, "hidden_size"), self.size(config, "num_hidden_layers")
        implied = hidden * (3 * math.prod(clip.tubelet_size) + blocks * (4 * hidden + 2 * _inner(config)))
        if self.has_head(config):
            layers = self.size(config, "num_pooler_layers")
            implied += hidden * hidden * (layers * (4 + 2 * _POOLER_RATIO) + 3 + 2 * _POOLER_RATIO)
        return implied

    def require(self, config: JsonObject, origin: str) -> None:
        """See `Family.require`: RGB, pairs of channels that rotate, and an MLP that has a width."""
        if config.get("in_chans", 3) != 3:
            raise CheckpointError(f"{origin}: in_chans={shown(config['in_chans'])}; only RGB models (3) are supported")
        if type(config.get("qkv_bias", True)) is not bool:
            raise CheckpointError(f"{origin}: qkv_bias must be true or false, got {shown(config['qkv_bias'])}")
        ratio = config.get("mlp_ratio", 4.0)
        if type(ratio) not in (int, float) or not 0 < ratio <= MOST_WIDTH or not 1 <= _inner(config) <= MOST_WIDTH:
            raise CheckpointError(
                f"{origin}: mlp_ratio times hidden_size must be from 1 to {MOST_WIDTH}, got mlp_ratio {shown(ratio)}"
            )
        head = self.size(config, "hidden_size", origin) // self.size(config, "num_attention_heads", origin)
        if head % 2 or head < 6:
            raise CheckpointError(
                f"{origin}: heads have {head} channels (hidden_size / num_attention_heads); to turn pairs of them by "
                "time, row and column, it must be an even number from 6"
            )


def _inner(config: JsonObject) -> int:
    """Return the width inside the MLPs of the encoder, as ``VJEPA2MLP`` computes it."""
    return int(config.get("hidden_size", VJepa2.sizes["hidden_size"]) * config.get("mlp_ratio", 4.0))
