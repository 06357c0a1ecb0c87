"""What a model family must say about itself, without torch: how its config becomes a clip and an anatomy."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from vivit_export.anatomy import Anatomy, Attention, Pooling, Stack, block_flops
from vivit_export.contract import Clip
from vivit_export.errors import CheckpointError
from vivit_export.limits import MOST_WIDTH
from vivit_export.records import JsonObject, shown


@dataclass(frozen=True, slots=True)
class TapPoint:
    """A place in the network whose value block drift compares: what goes into a LayerNormalization.

    Attributes:
        name: for people, such as ``layer 3 attention``.
        paths: beginnings of the module paths that compute it from the tap before, such as ``layers.3.mlp``.
        norm: module path of the LayerNormalization that reads it.
        norm_output: whether the tap is what comes out of the LayerNormalization instead.
    """

    name: str
    paths: tuple[str, ...]
    norm: str
    norm_output: bool = False


def tapped_outputs(taps: Sequence[TapPoint]) -> tuple[str, ...]:
    """Return which outputs of a network, if it has them, are taps after these.

    A network without a head may end in the mean of its tokens, with no LayerNormalization after its last block.
    """
    return ("logits",) if any(tap.norm_output for tap in taps) else ("logits", "embedding")


class Family(ABC):
    """A model family: one ``model_type`` of Hugging Face configs.

    Attributes:
        model_type: the type.
        title: its name for people.
        classifier: class name of the network with a head, as ``architectures`` of a config has it.
        encoder: class name of the network without one.
        base: name that the network with a head gives to the one without.
        anchor: end of the name of a weight that every checkpoint of the family has exactly once.
        sizes: sizes that a config may leave out, and what they are then.
        processor: class of its image processor.
        sampling: how its authors draw frames from a video, as options; None: as the default does.
    """

    model_type: ClassVar[str]
    title: ClassVar[str]
    classifier: ClassVar[str]
    encoder: ClassVar[str]
    base: ClassVar[str]
    anchor: ClassVar[str]
    sizes: ClassVar[Mapping[str, int]] = {
        "hidden_size": 768,
        "num_attention_heads": 12,
        "num_hidden_layers": 12,
        "intermediate_size": 3072,
    }
    processor: ClassVar[str] = "VivitImageProcessor"
    sampling: ClassVar[str | None] = None

    @abstractmethod
    def clip(self, config: JsonObject, origin: str) -> Clip:
        """Return the shape of the network's input.

        Args:
            config: the fields of ``config.json``.
            origin: where they are from, for messages.

        Raises:
            CheckpointError: a field of another form.
            InputError: sizes that the tubelet does not divide.
        """

    @abstractmethod
    def anatomy(self, config: JsonObject, clip: Clip) -> Anatomy:
        """Return what the network is made of; ``clip`` is its `clip`."""

    @abstractmethod
    def taps(self, config: JsonObject) -> tuple[TapPoint, ...]:
        """Return where block drift looks, from the embeddings to the last LayerNormalization."""

    def implied_numbers(self, config: JsonObject, clip: Clip) -> int:
        """Return how many numbers a network has at least: weights, without biases and classifier, and positions."""
        hidden, inner = self.size(config, "hidden_size"), self.size(config, "intermediate_size")
        anatomy = self.anatomy(config, clip)
        # Two Linears of a block are the MLP's; all others are hidden x hidden.
        blocks = sum(stack.blocks * ((stack.linears - 2) * hidden + 2 * inner) for stack in anatomy.stacks)
        return hidden * (3 * math.prod(clip.tubelet_size) + anatomy.tokens + blocks)

    def joint_anatomy(self, config: JsonObject, path: str, attention: Attention, pooling: Pooling) -> Anatomy:
        """Return the anatomy of one stack of blocks in which all tokens attend to each other.

        Args:
            config: the fields of ``config.json``.
            path: of the stack.
            attention: that of a block.
            pooling: how the embedding is made.
        """
        blocks = self.size(config, "num_hidden_layers")
        flops = block_flops(
            rows=attention.tokens,
            hidden=self.size(config, "hidden_size"),
            inner=self.size(config, "intermediate_size"),
            attentions=(attention,),
        )
        stack = Stack(path, blocks, (attention,), linears=6)
        return Anatomy((stack,), self.size(config, "num_attention_heads"), attention.tokens, pooling, blocks * flops)

    def has_head(self, config: JsonObject) -> bool:
        """Return whether the network ends in a classifier; with no labels it ends in nothing, as in transformers."""
        none = config["id2label"] == {} if config.get("id2label") is not None else config.get("num_labels") == 0
        return not none and self.encoder not in (config.get("architectures") or [])

    def require(self, config: JsonObject, origin: str) -> None:  # noqa: B027 - most families have none
        """Refuse fields that only this family has, and that no network of ours fits.

        Raises:
            CheckpointError: there is one.
        """

    def size(self, config: JsonObject, name: str, origin: str = "config.json") -> int:
        """Return one of `sizes`.

        Raises:
            CheckpointError: it is not a positive whole number, or too large.
        """
        value = config.get(name, self.sizes[name])
        if type(value) is not int or not 1 <= value <= MOST_WIDTH:
            raise CheckpointError(f"{origin}: {name} must be a whole number from 1 to {MOST_WIDTH}, got {shown(value)}")
        return value


def whole_numbers(values: list[Any], count: int, name: str, origin: str) -> list[int]:
    """Return ``values`` if they are ``count`` positive whole numbers.

    Raises:
        CheckpointError: they are not.
    """
    if len(values) != count or not all(type(v) is int and v > 0 for v in values):
        what = "a positive integer" if count == 1 else f"{count} positive integers"
        raise CheckpointError(f"{origin}: {name} must be {what}, got {shown(values[0] if count == 1 else values)}")
    return values


def sides(config: JsonObject, name: str, default: int, origin: str) -> tuple[int, int]:
    """Return a (height, width) that a config has as one number or as two."""
    value = config.get(name, default)
    height, width = whole_numbers(value if isinstance(value, list) else [value] * 2, 2, name, origin)
    return height, width
