"""Deploying to a model repository in tests, and reading its configuration as Triton's own schema has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bundles import need

from vivit_export.bundle import Bundle
from vivit_export.deploy.triton.deploy import TritonOptions, deploy_triton

NAME = "vivit-b-16x2-kinetics400"  # of `made_bundle`, where no other is asked for


def deploy(bundle: Bundle, target: Path, **options: Any) -> Path:
    """Deploy, and return the folder of the model."""
    return deploy_triton(bundle, target, TritonOptions(**options)).path / (options.get("name") or NAME)


def read_config(model: Path) -> Any:
    """``config.pbtxt`` of a model's folder, parsed by protobuf."""
    need("tritonclient")
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    return text_format.Parse((model / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
