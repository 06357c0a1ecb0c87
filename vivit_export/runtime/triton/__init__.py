"""Serving a bundle with Triton Inference Server: the model repository it needs, and a client for it.

Names are loaded on first use: a machine that only writes repositories needs no client, and the server neither.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vivit_export.lazy import lazy_names

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

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
