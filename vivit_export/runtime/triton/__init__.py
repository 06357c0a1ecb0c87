"""Serving a bundle with Triton Inference Server: the model repository it needs, and a client for it.

Names are loaded on first use: a machine that only writes repositories needs no client, and the server neither.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vivit_export.runtime.triton.address import parse_address
    from vivit_export.runtime.triton.client import TritonBackend, open_server
    from vivit_export.runtime.triton.deploy import TritonOptions, deploy_triton
    from vivit_export.runtime.triton.videos import VideoModel, open_model

__all__ = [
    "TritonBackend",
    "TritonOptions",
    "VideoModel",
    "deploy_triton",
    "open_model",
    "open_server",
    "parse_address",
]

_HOMES = {
    "TritonBackend": "client",
    "TritonOptions": "deploy",
    "VideoModel": "videos",
    "deploy_triton": "deploy",
    "open_model": "videos",
    "open_server": "client",
    "parse_address": "address",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
