"""Write a Triton model repository from a bundle: configuration, model, labels, and a real clip for warm-up."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vivit_export.arguments import instance, set_fields, text_or_none, whole_or_none
from vivit_export.bundle import Bundle, read_bundle
from vivit_export.bundle.graph import require_sound_graph
from vivit_export.bundle.signatures.trust import Files
from vivit_export.bundle.signatures.verify import require_signature as require_signer
from vivit_export.choices import ServerBackend
from vivit_export.contract import Contract
from vivit_export.deploy.listing import README, Deployment
from vivit_export.deploy.proof import keep_proof
from vivit_export.deploy.triton import golden_check
from vivit_export.deploy.triton.config import (
    CHECK,
    CHECK_FACTS,
    CONFIG,
    LABELS,
    Engine,
    choose_delay_us,
    choose_engine,
    engine_config,
)
from vivit_export.deploy.triton.front_config import front_models
from vivit_export.deploy.triton.golden_check import LIMITS, Golden
from vivit_export.deploy.triton.pbtxt import Message, render
from vivit_export.deploy.triton.readme import readme_text
from vivit_export.deploy.triton.repository import adding, read_model
from vivit_export.deploy.wheel import write_wheel
from vivit_export.errors import BundleError, InputError, UsageError, option
from vivit_export.files import as_path, sha256_of, write_json
from vivit_export.progress import Progress, Silent
from vivit_export.runtime.clips.pixels.preprocess import Preprocessor
from vivit_export.runtime.clips.views import ViewCropper
from vivit_export.runtime.drift.check import first_golden_clip, gate_of
from vivit_export.runtime.drift.per_clip import scale_of
from vivit_export.runtime.session.triton.protocol import DATATYPES

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True, slots=True)
class TritonOptions:
    """How to serve a bundle.

    Attributes:
        name: name of the model; None: the last part of the model's id.
        backend: None: TensorRT if the bundle has a TensorRT engine, else ONNX Runtime.
        instances: copies of the engine per GPU (or on the CPU); None: Triton chooses, one per GPU.
        delay_us: how long a request may wait for others to share its batch, in microseconds; None: see
            `vivit_export.deploy.triton.config.choose_delay_us`.
        contract: may have a different sampling rule or labels than the bundle's; its shapes are the bundle's.
        ensemble: also serve ``NAME-video``, which takes encoded videos (`vivit_export.deploy.triton.front`).
    """

    name: str | None = None
    backend: ServerBackend | None = None
    instances: int | None = None
    delay_us: int | None = None
    contract: Contract | None = None
    ensemble: bool = False

    def __post_init__(self) -> None:
        set_fields(self, text_or_none, "name")
        if self.name is not None and not _NAME.fullmatch(self.name):
            raise UsageError(
                f"{option('name', repr(self.name))} is not a model name: letters, digits, '_', '-' and '.' are allowed"
            )
        set_fields(self, whole_or_none, "instances", "delay_us")
        if self.instances is not None and self.instances < 1:
            raise UsageError(f"{option('instances', self.instances)} must be 1 or more")
        if self.delay_us is not None and self.delay_us < 0:
            raise UsageError(f"{option('delay_us', self.delay_us)} must be 0 or more")


def deploy_triton(
    bundle: Bundle | str | Path,
    target: str | Path,
    options: TritonOptions | None = None,
    *,
    force: bool = False,
    require_signature: Files | None = None,
    identity: str | None = None,
    progress: Progress | None = None,
) -> Deployment:
    """Write a model repository, or add a model to one.

    Args:
        bundle: a bundle or its folder; its files are verified before and after they are copied.
        target: the repository's folder; afterward it is complete, or as it was. Other models in it do not change.
        options: how to serve the bundle.
        force: replace a deployment of the same name.
        require_signature: see `vivit_export.open_session`, as for ``identity``. The signature is kept in the repository
            as a proof (`vivit_export.deploy.proof`).
        identity: see `vivit_export.open_session`.
        progress: receives the stages, and what was made of an interrupted run.

    Raises:
        UsageError: the back end is unknown, or views are requested of a model that does not crop.
        BundleError: the bundle is damaged, or has no engine that Triton can serve.
        SignatureError: it is not signed by whom it must be signed by.
        InputError: Triton could not look up a label.
        OutputError: the repository has a model of that name, or cannot be written.
    """
    progress, target = progress or Silent(), as_path(target, "target")
    options = TritonOptions() if options is None else instance("options", options, TritonOptions)
    with progress.stage("verify the bundle"):
        source = read_bundle(bundle.path if isinstance(bundle, Bundle) else bundle)
        require_signer(source, require_signature, identity)
        require_sound_graph(source)
    contract = options.contract or source.contract
    _require_lines(contract.labels)
    if options.ensemble:
        ViewCropper(contract)  # refuses views that this model cannot be given
    engine = choose_engine(source, options.backend)
    name = options.name or _default_name(source.manifest.model.id)
    delay_us = options.delay_us if options.delay_us is not None else choose_delay_us(source, engine)
    config = engine_config(name, source, contract, engine, delay_us=delay_us, instances=options.instances)
    front = front_models(name, source, contract, engine) if options.ensemble else []
    names = [name, *(model.name for model in front)]
    with adding(source, target, names, force, progress.note) as work, progress.stage("write the model repository"):
        _write_model(work / name, config, contract.labels)
        _copy_engine(source, engine, work / name / "1")
        _write_golden(source, engine, work / name, name)
        for model in front:
            _write_model(work / model.name, model.config, contract.labels if model.has_labels else ())
            if model.python is not None:
                (work / model.name / "1/model.py").write_text(_model_py(name, model.python), encoding="utf-8")
        text = readme_text(name, source, contract, engine, delay_us, options.ensemble)
        (work / name / README).write_text(text, encoding="utf-8")
        write_wheel(work / name)
        keep_proof(source, work / name, engine.prepared)
    return read_model(target, name)


def _require_lines(labels: tuple[str, ...]) -> None:
    broken = next((label for label in labels if len(label.splitlines()) != 1), None)
    if broken is not None:
        raise InputError(
            f"label {broken!r} cannot be one line of {LABELS}, where Triton looks names up by line; give other names "
            f"with {option('labels')}"
        )


def _default_name(model: str) -> str:
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", model.rstrip("/").rpartition("/")[2]).lstrip("_.-")
    return name or "vivit"


def _write_model(folder: Path, config: Message, labels: tuple[str, ...]) -> None:
    (folder / "1").mkdir(parents=True)
    (folder / CONFIG).write_text(render(config), encoding="utf-8")
    if labels:
        (folder / LABELS).write_text("".join(f"{label}\n" for label in labels), encoding="utf-8")


def _model_py(name: str, python: str) -> str:
    return (
        f'"""Reads videos for the model {name}; needs vivit-export\'s runtime and PyAV beside Triton."""\n\n'
        f"from vivit_export.deploy.triton.front import {python} as TritonPythonModel\n"
    )


def _copy_engine(bundle: Bundle, engine: Engine, folder: Path) -> None:
    listed = bundle.manifest.files
    for name, path in engine.files.items():
        if name in engine.prepared:
            (folder / name).write_bytes(engine.prepared[name])
            continue
        shutil.copyfile(path, folder / name)
        if sha256_of(folder / name) != listed[path.relative_to(bundle.path).as_posix()].sha256:
            raise BundleError(f"{path} changed while it was copied; run again on a bundle that nobody writes to")


def _write_golden(bundle: Bundle, engine: Engine, folder: Path, name: str) -> None:
    """Write the first golden clip as the bytes of the model's input, and a check of the server's answers for it.

    Triton repeats the clip to fill the batches that warm it up.
    """
    if bundle.golden is None:
        return
    frames, reference = first_golden_clip(bundle)
    clip: npt.NDArray[Any] = frames
    contract = bundle.contract
    if contract.io.mode == "pixels":
        clip = Preprocessor(contract.clip, contract.preprocess).to_pixels(clip)
    source = contract.io.inputs[0]
    (folder / "warmup").mkdir()
    (folder / "warmup" / source.name).write_bytes(np.ascontiguousarray(clip).tobytes())
    limits = gate_of(bundle).for_one_clip().limits
    golden: Golden = {
        "model": name,
        "input": source.name,
        "datatype": DATATYPES[source.dtype],
        "shape": [int(d) for d in source.shape[1:]],
        "batches": list(engine.batches),
        "outputs": {output: [float(value) for value in rows[0]] for output, rows in reference.items()},
        "span": scale_of(reference["logits"].astype(np.float64)) if "logits" in reference else 1.0,
        "limits": {metric: limits[metric] for metric in LIMITS if metric in limits},
    }
    write_json(folder / CHECK_FACTS, golden)
    shutil.copyfile(golden_check.__file__, folder / CHECK)
