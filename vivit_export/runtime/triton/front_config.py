"""Configurations of the models in front of the engine: an encoded video in, logits out.

::

    one clip per video                            several views (BLS)

    video ─► NAME-frames ─► NAME ─► logits        video ─► NAME-video ─┬─► NAME ─┐
             └────── NAME-video, an ensemble ──┘            logits ◄───┴─ mean ◄─┘
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from vivit_export.contract import Contract
from vivit_export.runtime.triton.config import CONTRACT, Engine, output_message, tensor_message
from vivit_export.runtime.triton.pbtxt import Message, Symbol, map_field

VIDEO = "video"
FRAMES_SUFFIX, VIDEO_SUFFIX = "-frames", "-video"
ENGINE_MODEL = "vivit_engine_model"
LARGEST = "vivit_largest_batch"

# Videos decoded at once; each decoder has threads of its own.
_DECODERS = {"count": 2, "kind": Symbol("KIND_CPU")}


@dataclass(frozen=True, slots=True)
class FrontModel:
    """One model in front of the engine.

    Attributes:
        name: of the model.
        config: its ``ModelConfig``.
        python: class of `vivit_export.runtime.triton.front` that it runs, or None for an ensemble.
        has_labels: whether it puts out logits.
    """

    name: str
    config: Message
    python: str | None
    has_labels: bool


def front_models(name: str, contract: Contract, engine: Engine) -> list[FrontModel]:
    """Return the models that take encoded videos; the one to ask is the last.

    Args:
        name: of the engine's model.
        contract: says which views of a video are run.
        engine: what the engine's model runs.
    """
    outputs = [output_message(tensor, contract) for tensor in contract.io.outputs]
    video = name + VIDEO_SUFFIX
    if contract.clip.views != (1, 1):
        config = _python(video, contract, engine, outputs, {ENGINE_MODEL: name, LARGEST: str(engine.batches[-1])})
        return [FrontModel(video, config, "ViewsModel", bool(contract.labels))]
    frames = name + FRAMES_SUFFIX
    source = [tensor_message(contract.io.inputs[0])]
    return [
        FrontModel(frames, _python(frames, contract, engine, source, {}), "FramesModel", has_labels=False),
        FrontModel(video, _ensemble(video, frames, name, contract, engine, outputs), None, bool(contract.labels)),
    ]


def _common(engine: Engine, outputs: list[dict[str, Any]]) -> dict[str, Any]:
    """Fields of all: a file's bytes as they are, so that no client has to frame them."""
    return {
        "max_batch_size": engine.batches[-1],
        "input": [{"name": VIDEO, "data_type": Symbol("TYPE_UINT8"), "dims": [-1]}],
        "output": outputs,
        "version_policy": {"latest": {"num_versions": 1}},
    }


def _python(
    name: str, contract: Contract, engine: Engine, outputs: list[dict[str, Any]], more: dict[str, str]
) -> Message:
    texts = {CONTRACT: json.dumps(contract.to_json(), sort_keys=True, separators=(",", ":")), **more}
    parameters = map_field({key: {"string_value": text} for key, text in texts.items()})
    common = _common(engine, outputs)
    return {"name": name, "backend": "python", **common, "instance_group": [_DECODERS], "parameters": parameters}


def _ensemble(
    name: str, frames: str, model: str, contract: Contract, engine: Engine, outputs: list[dict[str, Any]]
) -> Message:
    source = contract.io.inputs[0].name
    names = [tensor.name for tensor in contract.io.outputs]
    steps = [_step(frames, [VIDEO], [source]), _step(model, [source], names)]
    return {
        "name": name,
        "platform": "ensemble",
        **_common(engine, outputs),
        "ensemble_scheduling": {"step": steps},
    }


def _step(model: str, inputs: list[str], outputs: list[str]) -> Message:
    """A step whose tensors have the same names inside and outside of its model."""
    return {
        "model_name": model,
        "model_version": -1,
        "input_map": map_field({name: name for name in inputs}),
        "output_map": map_field({name: name for name in outputs}),
    }
