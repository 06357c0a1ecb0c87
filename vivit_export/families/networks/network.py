"""What all families share: build the network that a config describes, run it, and make it traceable."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import transformers
import transformers.activations

from vivit_export.families.family import Family
from vivit_export.records import JsonObject

State = dict[str, torch.Tensor]

_TANH_GELUS = tuple(
    getattr(transformers.activations, name)
    for name in ("FastGELUActivation", "NewGELUActivation", "PytorchGELUTanh", "GELUTanh")
    if hasattr(transformers.activations, name)
)


class Network:
    """How the networks of a family are built, run and traced.

    Args:
        family: the half without torch.
    """

    def __init__(self, family: Family) -> None:
        self.family = family

    def load(self, config: JsonObject, state: Mapping[str, torch.Tensor], *, has_head: bool) -> tuple[Any, Any]:
        """Build a network and give it weights.

        Args:
            config: fields of ``config.json``.
            state: float32 weights by the names that `renamed` gives.
            has_head: whether it ends in a classifier.

        Returns:
            The network, and transformers' account of missing, unexpected and mismatched weights.

        Raises:
            Exception: transformers raises a dozen kinds for one bad field.
        """
        cls = self._class(self.family.classifier if has_head else self.family.encoder)
        options = {} if has_head else self._encoder_options()
        network, info = cls.from_pretrained(
            None,
            config=cls.config_class.from_dict(config),
            state_dict=dict(state),
            attn_implementation=self._attention(),
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **options,
        )
        return network, info

    def encoder(self, network: Any) -> Any:
        """Return the network below the head, or all of it if there is none."""
        return getattr(network, self.family.base, network)

    def embedding(self, network: Any, pixels: torch.Tensor) -> torch.Tensor:
        """Run all but the classifier; here, up to the class token after the last LayerNorm.

        Args:
            network: from `load`.
            pixels: (B, T, 3, H, W), in the dtype of the weights.

        Returns:
            (B, hidden): what the classifier reads, or would.
        """
        embedding: torch.Tensor = self.encoder(network)(pixels).last_hidden_state[:, 0]
        return embedding

    def attend(self, network: Any, kind: str) -> None:
        """Choose how a network attends, for good.

        Args:
            network: from `load`.
            kind: ``eager`` or ``sdpa``.
        """
        network.config._attn_implementation = kind

    def renamed(self, state: State) -> State:
        """Return stored weights by the names that the installed transformers loads them from."""
        return state

    @contextmanager
    def traceable(self, network: Any) -> Iterator[None]:
        """Make a network traceable into single ops, and restore everything afterward.

        - ``gelu_fast``, ``gelu_new`` and ``gelu_pytorch_tanh`` are one function,
          0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) (arXiv:1606.08415), written out in Python;
          torch's own spelling becomes one ``Gelu(approximate=tanh)``. In float64 they agree to 1e-12.
        - attention runs through SDPA, regardless of the checkpoint's setting.
        """
        attention = network.config._attn_implementation
        with swapped(network, _TANH_GELUS, lambda _: torch.nn.GELU(approximate="tanh")):
            try:
                network.config._attn_implementation = self._attention()
                yield
            finally:
                network.config._attn_implementation = attention

    def _class(self, name: str) -> Any:
        return getattr(transformers, name)

    def _encoder_options(self) -> JsonObject:
        return {}

    def _attention(self) -> str:
        return "sdpa"


@contextmanager
def swapped(network: torch.nn.Module, kinds: tuple[type, ...] | type, make: Any) -> Iterator[None]:
    """Replace all modules of some kinds for a while.

    Args:
        network: whose modules.
        kinds: classes of those to replace.
        make: returns what stands in for a module.
    """
    before = swap(network, kinds, make)
    try:
        yield
    finally:
        for parent, name, child in before:
            setattr(parent, name, child)


def swap(
    network: torch.nn.Module, kinds: tuple[type, ...] | type, make: Any
) -> list[tuple[torch.nn.Module, str, torch.nn.Module]]:
    """Replace modules as `swapped` does, for good; return what was replaced: its parent, its name there, and itself."""
    before: list[tuple[torch.nn.Module, str, torch.nn.Module]] = []
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, kinds):
                before.append((parent, name, child))
                setattr(parent, name, make(child))
    return before
