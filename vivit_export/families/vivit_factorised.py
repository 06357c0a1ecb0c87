"""The paper's factorised ViViTs (arXiv:2103.15691, models 2 to 4), as `vivit convert scenic` writes them."""

from __future__ import annotations

from vivit_export.anatomy import Anatomy, Attention, Stack, block_flops
from vivit_export.contract import Clip
from vivit_export.errors import CheckpointError
from vivit_export.families.family import TapPoint
from vivit_export.families.vivit import Vivit, stack_taps
from vivit_export.limits import MOST_WIDTH
from vivit_export.records import JsonObject, shown

FACTORISATIONS = ("encoder", "self_attention", "dot_product")
"""Models 2, 3 and 4."""
ATTENTION_ORDERS = ("time_space", "space_time")
"""Of model 3."""
_DEPTH = "temporal_num_hidden_layers"


class VivitFactorised(Vivit):
    """Networks of this package: `vivit_export.families.networks.vivit_factorised_modeling`."""

    model_type = "vivit_factorised"
    title = "factorised ViViT"
    classifier = "VivitFactorisedForVideoClassification"
    encoder = "VivitFactorisedModel"
    anchor = "embeddings.patch_embeddings.projection.weight"
    sampling = "--sampling stride --stride 2 --views 4x3"  # on Kinetics; section 4.1
    sizes = {**Vivit.sizes, _DEPTH: 4}  # noqa: RUF012 - annotated in `Family`

    def anatomy(self, config: JsonObject, clip: Clip) -> Anatomy:
        """See `Family.anatomy`: a second stack over the steps, or blocks that attend over time and over space."""
        steps = clip.num_frames // clip.tubelet_size[0]
        places = clip.num_tubelets // steps
        if _kind(config) == "encoder":
            return self._two_stacks(config, steps, places)
        blocks, shared = self.size(config, "num_hidden_layers"), _kind(config) == "dot_product"
        names = ("attention.temporal", "attention.spatial") if shared else ("temporal_attention", "spatial_attention")
        attentions = (Attention(names[0], steps, places), Attention(names[1], places, steps))
        if config.get("attention_order") == "space_time" and not shared:
            attentions = attentions[::-1]
        flops = block_flops(
            rows=clip.num_tubelets,
            hidden=self.size(config, "hidden_size"),
            inner=self.size(config, "intermediate_size"),
            attentions=attentions,
            shared=shared,
        )
        return Anatomy(
            stacks=(Stack("layers", blocks, attentions, linears=6 if shared else 10, shared=shared),),
            heads=self.size(config, "num_attention_heads"),
            tokens=clip.num_tubelets,
            pooling="mean",
            flops=blocks * flops,
        )

    def _two_stacks(self, config: JsonObject, steps: int, places: int) -> Anatomy:
        """Model 2: each step with a class token of its own, and then the steps with another."""
        hidden, depth = self.size(config, "hidden_size"), self.size(config, "num_hidden_layers")
        later, heads, inner = self._second(config)
        first, second = (Attention("attention", places + 1, steps),), (Attention("attention", steps + 1),)
        flops = depth * block_flops(
            rows=steps * (places + 1), hidden=hidden, inner=self.size(config, "intermediate_size"), attentions=first
        )
        flops += later * block_flops(rows=steps + 1, hidden=hidden, inner=inner, attentions=second)
        return Anatomy(
            stacks=(
                Stack("spatial.layers", depth, first, linears=6),
                Stack("temporal.layers", later, second, linears=6),
            ),
            heads=max(self.size(config, "num_attention_heads"), heads),
            tokens=steps * (places + 1),
            pooling="class-token",
            flops=flops,
        )

    def taps(self, config: JsonObject) -> tuple[TapPoint, ...]:
        """See `Family.taps`."""
        depth = self.size(config, "num_hidden_layers")
        if _kind(config) == "encoder":
            later, *_ = self._second(config)
            return (
                *stack_taps("spatial.layers", depth, "spatial.layernorm", "spatial "),
                *stack_taps("temporal.layers", later, "temporal.layernorm", "temporal ", "temporal.embeddings"),
                TapPoint("final norm", ("temporal.layernorm",), "temporal.layernorm", True),
            )
        last = TapPoint("final norm", ("layernorm",), "layernorm", True)
        if _kind(config) == "dot_product":
            return (*stack_taps("layers", depth, "layernorm"), last)
        return (*_divided_taps(depth, config.get("attention_order", ATTENTION_ORDERS[0])), last)

    def implied_numbers(self, config: JsonObject, clip: Clip) -> int:
        """See `Family.implied_numbers`; the second stack's MLPs have a width of their own."""
        implied = super().implied_numbers(config, clip)
        if _kind(config) == "encoder":
            later, _, inner = self._second(config)
            implied += 2 * later * self.size(config, "hidden_size") * (inner - self.size(config, "intermediate_size"))
        return implied

    def require(self, config: JsonObject, origin: str) -> None:
        """See `Family.require`: which of the three networks, and heads that divide."""
        for name, known in (("factorisation", FACTORISATIONS), ("attention_order", ATTENTION_ORDERS)):
            if config.get(name, known[0]) not in known:
                raise CheckpointError(f"{origin}: {name} {shown(config[name])} is not one of {', '.join(known)}")
        hidden, heads = self.size(config, "hidden_size", origin), self.size(config, "num_attention_heads", origin)
        _, later_heads, _ = self._second(config, origin)
        if _kind(config) == "encoder" and hidden % later_heads:
            raise CheckpointError(
                f"{origin}: hidden_size={hidden} does not divide by temporal_num_attention_heads={later_heads}"
            )
        if _kind(config) == "dot_product" and heads % 2:
            raise CheckpointError(
                f"{origin}: num_attention_heads={heads} is odd, but half of the heads attend over time"
            )

    def _second(self, config: JsonObject, origin: str = "config.json") -> tuple[int, int, int]:
        """Return the blocks, the heads and the width inside the MLPs of the second stack."""
        found = [self.size(config, _DEPTH, origin)]
        for name in ("num_attention_heads", "intermediate_size"):
            value = config.get(f"temporal_{name}")
            if value is not None and (type(value) is not int or not 1 <= value <= MOST_WIDTH):
                raise CheckpointError(
                    f"{origin}: temporal_{name} must be a whole number from 1 to {MOST_WIDTH}, got {shown(value)}"
                )
            found.append(self.size(config, name, origin) if value is None else value)
        blocks, heads, inner = found
        return blocks, heads, inner


def _kind(config: JsonObject) -> str:
    return str(config.get("factorisation", FACTORISATIONS[0]))


def _divided_taps(blocks: int, order: str) -> list[TapPoint]:
    """Return the taps of blocks that attend twice, each time after a LayerNormalization."""
    first, second = ("temporal", "spatial") if order == ATTENTION_ORDERS[0] else ("spatial", "temporal")
    taps = [TapPoint("embeddings", ("embeddings",), f"layers.0.{first}_layernorm")]
    for i in range(blocks):
        block = f"layers.{i}"
        following = f"layers.{i + 1}.{first}_layernorm" if i + 1 < blocks else "layernorm"
        taps += [
            TapPoint(f"layer {i} {first} attention", (f"{block}.{first}_attention",), f"{block}.{second}_layernorm"),
            TapPoint(f"layer {i} {second} attention", (f"{block}.{second}_attention",), f"{block}.layernorm_after"),
            TapPoint(f"layer {i} MLP", (f"{block}.mlp",), following),
        ]
    return taps
