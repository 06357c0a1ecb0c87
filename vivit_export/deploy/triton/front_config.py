"""Configurations of the models that run before the engine: an encoded video in, logits out.

::

    one clip per video                            several views (BLS)

    video ─► NAME-frames ─► NAME ─► logits        video ─► NAME-video ─┬─► NAME ─┐
             └────── NAME-video, an ensemble ──┘            logits ◄───┴─ mean ◄─┘
"""

from __future__ import annotations

from dataclasses import dataclass

from vivit_export.bundle import Bundle
from vivit_export.contract import Contract
from vivit_export.deploy.triton.config import Engine, output_message, parameters, tensor_message
from vivit_export.deploy.triton.pbtxt import Message, Symbol, map_field
from vivit_export.runtime.session.triton.protocol import FRAMES_SUFFIX, VIDEO, VIDEO_SUFFIX

ENGINE_MODEL = "vivit_engine_model"
LARGEST = "vivit_largest_batch"

# One reads while the results of the other are on their way; each reads as many videos at once as there are cores.
_INSTANCES = {"count": 2, "kind": Symbol("KIND_CPU")}
_VIDEO_INPUT = {"name": VIDEO, "data_type": Symbol("TYPE_UINT8"), "dims": [-1]}


@dataclass(frozen=True, slots=True)
class FrontModel:
    """A model that runs before the engine.

    Attributes:
        name: name of the model.
        config: its ``ModelConfig``.
        python: class of `vivit_export.deploy.triton.front` that it runs, or None for an ensemble.
        has_labels: whether it outputs logits.
    """

    name: str
    config: Message
    python: str | None
    has_labels: bool


def front_models(name: str, bundle: Bundle, contract: Contract, engine: Engine) -> list[FrontModel]:
    """Return the models that take encoded videos; clients call the last one.

    Args:
        name: name of the engine's model.
        bundle: the bundle to serve.
        contract: the bundle's contract, possibly with other labels or another sampling rule; it sets the views.
        engine: what the engine's model runs.
    """
    outputs = [output_message(tensor, contract) for tensor in contract.io.outputs]
    video, has_labels = name + VIDEO_SUFFIX, bool(contract.labels)
    if contract.clip.views != (1, 1):
        facts = parameters(bundle, contract, engine, **{ENGINE_MODEL: name, LARGEST: str(engine.batches[-1])})
        return [FrontModel(video, _python(video, engine, outputs, facts), "ViewsModel", has_labels)]
    frames, facts = name + FRAMES_SUFFIX, parameters(bundle, contract, engine)
    source = [tensor_message(contract.io.inputs[0])]
    steps = [
        _step(frames, [VIDEO], [contract.io.inputs[0].name]),
        _step(name, [contract.io.inputs[0].name], [tensor.name for tensor in contract.io.outputs]),
    ]
    return [
        FrontModel(frames, _python(frames, engine, source, facts), "FramesModel", has_labels=False),
        FrontModel(video, _ensemble(video, engine, outputs, steps, facts), None, has_labels),
    ]


def _common(engine: Engine, outputs: list[Message]) -> Message:
    """Return the fields of all models; the input is a file's unchanged bytes, so that clients need no framing."""
    return {
        "max_batch_size": engine.batches[-1],
        "input": [_VIDEO_INPUT],
        "output": outputs,
        "version_policy": {"latest": {"num_versions": 1}},
    }


def _python(name: str, engine: Engine, outputs: list[Message], facts: list[Message]) -> Message:
    return {
        "name": name,
        "backend": "python",
        **_common(engine, outputs),
        # Requests that wait come in one call, which reads their videos at once; they differ in size, hence ragged.
        "input": [{**_VIDEO_INPUT, "allow_ragged_batch": True}],
        "dynamic_batching": {},
        "instance_group": [_INSTANCES],
        "parameters": facts,
    }


def _ensemble(name: str, engine: Engine, outputs: list[Message], steps: list[Message], facts: list[Message]) -> Message:
    return {
        "name": name,
        "platform": "ensemble",
        **_common(engine, outputs),
        "ensemble_scheduling": {"step": steps},
        "parameters": facts,
    }


def _step(model: str, inputs: list[str], outputs: list[str]) -> Message:
    """Return a step whose tensors have the same names inside and outside its model."""
    return {
        "model_name": model,
        "model_version": -1,
        "input_map": map_field({name: name for name in inputs}),
        "output_map": map_field({name: name for name in outputs}),
    }
