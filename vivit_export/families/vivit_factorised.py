"""The factorised ViViTs of the paper (arXiv:2103.15691, models 2, 3 and 4), as `vivit convert scenic` writes them."""

from __future__ import annotations

from vivit_export.anatomy import Anatomy, Attention, Stack, block_flops
from vivit_export.contract import Clip
from vivit_export.errors import CheckpointError
from vivit_export.families.family import TapPoint
from vivit_export.families.vivit import Vivit, stack_taps
from vivit_export.limits import MOST_WIDTH
from vivit_export.records import JsonObject, shown

_CHOICES = {
    "factorisation": ("encoder", "self_attention", "dot_product"),
    "attention_order": ("time_space", "space_time"),
}
# Fields of the second stack of an encoder, and those of the first that they default to.
_TEMPORAL = {
    "temporal_num_hidden_layers": None,
    "temporal_num_attention_heads": "num_attention_heads",
    "temporal_intermediate_size": "intermediate_size",
}
_FOUR = 4  # layers of the second stack in the paper's base size


class VivitFactorised(Vivit):
    """Our own networks, in `vivit_export.families.networks.vivit_factorised_modeling`."""

    model_type = "vivit_factorised"
    title = "factorised ViViT"
    classifier = "VivitFactorisedForVideoClassification"
    encoder = "VivitFactorisedModel"
    anchor = "embeddings.patch_embeddings.projection.weight"
    sampling = "--sampling stride --stride 2 --views 4x3"  # on Kinetics; section 4.1

    def anatomy(self, config: JsonObject, clip: Clip) -> Anatomy:
        """See `Family.anatomy`."""
        steps = clip.num_frames // clip.tubelet_size[0]
        places = clip.num_tubelets // steps
        kind = config.get("factorisation", "encoder")
        if kind == "encoder":
            return self._encoder(config, steps, places)
        over_time, over_space = Attention("temporal", steps, places), Attention("spatial", places, steps)
        if kind == "self_attention":
            parts = (
                Attention("temporal_attention", over_time.tokens, over_time.sequences),
                Attention("spatial_attention", over_space.tokens, over_space.sequences),
            )
            parts = parts if _time_first(config) else parts[::-1]
            stack = Stack("layers", self.size(config, "num_hidden_layers"), parts, linears=10, projections=2)
        else:
            parts = (
                Attention("attention.temporal", over_time.tokens, over_time.sequences),
                Attention("attention.spatial", over_space.tokens, over_space.sequences),
            )
            stack = Stack("layers", self.size(config, "num_hidden_layers"), parts, linears=6, projections=1)
        hidden = self.size(config, "hidden_size")
        flops = block_flops(
            rows=steps * places,
            hidden=hidden,
            inner=self.size(config, "intermediate_size"),
            attentions=parts,
            projections=stack.projections,
            width=hidden if kind == "self_attention" else hidden // 2,
        )
        heads = self.size(config, "num_attention_heads")
        return Anatomy((stack,), heads, steps * places, "mean", stack.blocks * flops)

    def _encoder(self, config: JsonObject, steps: int, places: int) -> Anatomy:
        hidden, inner = self.size(config, "hidden_size"), self.size(config, "intermediate_size")
        temporal = {name: _temporal(config, name) for name in _TEMPORAL}
        spatial, over_time = Attention("attention", places + 1, steps), Attention("attention", steps + 1)
        stacks = (
            Stack("spatial.layers", self.size(config, "num_hidden_layers"), (spatial,), linears=6),
            Stack("temporal.layers", temporal["temporal_num_hidden_layers"], (over_time,), linears=6),
        )
        flops = stacks[0].blocks * block_flops(
            rows=steps * (places + 1), hidden=hidden, inner=inner, attentions=(spatial,)
        ) + stacks[1].blocks * block_flops(
            rows=steps + 1, hidden=hidden, inner=temporal["temporal_intermediate_size"], attentions=(over_time,)
        )
        heads = max(self.size(config, "num_attention_heads"), temporal["temporal_num_attention_heads"])
        return Anatomy(stacks, heads, steps * (places + 1), "class-token", flops)

    def taps(self, config: JsonObject, *, has_head: bool) -> tuple[TapPoint, ...]:
        """See `Family.taps`."""
        blocks, kind = self.size(config, "num_hidden_layers"), config.get("factorisation", "encoder")
        final = TapPoint("final norm", ("layernorm",), "layernorm", True)
        if kind == "dot_product":
            return (*stack_taps("layers", blocks, "layernorm"), final)
        if kind == "self_attention":
            return (*_divided_taps(blocks, _time_first(config)), final)
        later = _temporal(config, "temporal_num_hidden_layers")
        return (
            *stack_taps("spatial.layers", blocks, "spatial.layernorm", "spatial "),
            TapPoint("spatial final norm", ("spatial.layernorm",), "spatial.layernorm", True),
            *stack_taps("temporal.layers", later, "temporal.layernorm", "temporal ", "temporal.embeddings"),
            TapPoint("final norm", ("temporal.layernorm",), "temporal.layernorm", True),
        )

    def implied_numbers(self, config: JsonObject, clip: Clip) -> int:
        """See `Family.implied_numbers`; the MLPs of the second stack have a width of their own."""
        implied = super().implied_numbers(config, clip)
        if config.get("factorisation", "encoder") != "encoder":
            return implied
        wider = _temporal(config, "temporal_intermediate_size") - self.size(config, "intermediate_size")
        return implied + 2 * _temporal(config, "temporal_num_hidden_layers") * self.size(config, "hidden_size") * wider

    def require(self, config: JsonObject, origin: str) -> None:
        """See `Family.require`."""
        for name, known in _CHOICES.items():
            if config.get(name, known[0]) not in known:
                raise CheckpointError(f"{origin}: {name} must be one of {', '.join(known)}, got {shown(config[name])}")
        for name in _TEMPORAL:
            value = _temporal(config, name)
            if type(value) is not int or not 1 <= value <= MOST_WIDTH:
                raise CheckpointError(
                    f"{origin}: {name} must be a whole number from 1 to {MOST_WIDTH}, got {shown(value)}"
                )
        heads = {"num_attention_heads", "temporal_num_attention_heads"}
        hidden = self.size(config, "hidden_size", origin)
        for name in sorted(heads):
            count = _temporal(config, name) if name in _TEMPORAL else self.size(config, name, origin)
            if hidden % count:
                raise CheckpointError(f"{origin}: hidden_size={hidden} does not divide by {name}={count}")
        if config.get("factorisation") == "dot_product" and self.size(config, "num_attention_heads", origin) % 2:
            raise CheckpointError(f"{origin}: num_attention_heads must be even for dot_product: half attend over time")


def _temporal(config: JsonObject, name: str) -> int:
    """Return a size of the second stack of an encoder."""
    value, first = config.get(name), _TEMPORAL[name]
    if value is not None:
        return int(value) if type(value) is int else value
    return _FOUR if first is None else int(config.get(first, Vivit.sizes[first]))


def _time_first(config: JsonObject) -> bool:
    return bool(config.get("attention_order", "time_space") == "time_space")


def _divided_taps(blocks: int, time_first: bool) -> list[TapPoint]:
    """Return the taps of blocks that attend over time and over space in turn."""
    order = ("temporal", "spatial") if time_first else ("spatial", "temporal")
    taps = [TapPoint("embeddings", ("embeddings",), f"layers.0.{order[0]}_layernorm")]
    for i in range(blocks):
        block = f"layers.{i}"
        after = {order[0]: f"{block}.{order[1]}_layernorm", order[1]: f"{block}.layernorm_after"}
        following = f"layers.{i + 1}.{order[0]}_layernorm" if i + 1 < blocks else "layernorm"
        taps += [TapPoint(f"layer {i} {kind} attention", (f"{block}.{kind}_attention",), after[kind]) for kind in order]
        taps.append(TapPoint(f"layer {i} MLP", (f"{block}.mlp",), following))
    return taps
