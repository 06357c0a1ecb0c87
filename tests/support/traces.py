"""Tracing takes seconds however small the network is, so that equal networks are traced once in a process."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import pytest
from exporter import EXPORTER

if TYPE_CHECKING:
    import onnx_ir as ir

    from vivit_export.export.checkpoint.load import Checkpoint


_USER = "vivit_export.export.graph.build.trace"
_DONE: dict[tuple[str, ...], ir.Model] = {}


@pytest.fixture(scope="session", autouse=True)
def _trace_once() -> Iterator[None]:
    """Let what builds graphs take copies of a trace; `trace` itself is tested in ``export/graph/test_trace*.py``."""
    if EXPORTER:
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_USER, traced_once)
        yield


@pytest.fixture
def traced_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of what does not depend on the trace: each graph has its own."""
    from vivit_export.export.graph.trace import trace

    monkeypatch.setattr(_USER, trace)


def traced_once(checkpoint: Checkpoint, outputs: Sequence[str]) -> ir.Model:
    """A fresh copy of a network's traced graph, made once in this process."""
    from vivit_export.export.graph.trace import trace

    key = (_identity(checkpoint), *outputs)
    if key not in _DONE:
        _DONE[key] = trace(checkpoint, outputs)
    return _DONE[key].clone()


def _identity(checkpoint: Checkpoint) -> str:
    """A hash of all that a trace depends on: the network's modules, configuration and weights."""
    network = checkpoint.network
    digest = hashlib.sha256(f"{network}{checkpoint.clip}{json.dumps(checkpoint.config, default=str)}".encode())
    for name, tensor in network.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
