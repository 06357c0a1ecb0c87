"""Write a Triton model repository from a bundle: configuration, model, labels, a real clip to warm up with."""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vivit_export.bundle import Bundle, read_bundle, sha256_of
from vivit_export.contract import Contract
from vivit_export.errors import BundleError, InputError, UsageError
from vivit_export.progress import Progress, Silent
from vivit_export.runtime.check import golden_clips
from vivit_export.runtime.deployment import Deployment, deploying, read_deployment
from vivit_export.runtime.labels import read_labels
from vivit_export.runtime.preprocess import Preprocessor
from vivit_export.runtime.triton.config import (
    LABELS,
    Backend,
    Engine,
    choose_delay_us,
    choose_engine,
    engine_config,
)
from vivit_export.runtime.triton.pbtxt import Message, render
from vivit_export.runtime.triton.readme import readme_text

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True, slots=True)
class TritonOptions:
    """How a bundle is to be served.

    Attributes:
        name: of the model; None: the last part of the model's id.
        backend: None: TensorRT where the bundle has such an engine, else ONNX Runtime.
        instances: of the engine, per GPU (or on the CPU); None leaves the number to Triton: one per GPU.
        delay_us: how long a request may wait for others to share its batch, in microseconds; None: see
            `vivit_export.runtime.triton.config.choose_delay_us`.
        labels: file with other names for the logits (`read_labels`).
    """

    name: str | None = None
    backend: Backend | None = None
    instances: int | None = None
    delay_us: int | None = None
    labels: Path | None = None

    def __post_init__(self) -> None:
        if self.name is not None and not _NAME.fullmatch(self.name):
            raise UsageError(f"--name {self.name!r} is not a model name: letters, digits, '_', '-' and '.' are taken")
        if self.instances is not None and self.instances < 1:
            raise UsageError(f"--instances {self.instances} must be 1 or more")
        if self.delay_us is not None and self.delay_us < 0:
            raise UsageError(f"--max-delay-us {self.delay_us} must be 0 or more")


def deploy_triton(
    bundle: Bundle | str | Path,
    target: str | Path,
    options: TritonOptions | None = None,
    *,
    force: bool = False,
    progress: Progress | None = None,
) -> Deployment:
    """Write the repository.

    Args:
        bundle: a bundle or its folder; its files are verified before and after they are copied.
        target: the repository's folder; complete afterwards, or as it was.
        options: how it is to be served.
        force: replace a deployment that is there.
        progress: told about the stages.

    Raises:
        UsageError: an unknown backend.
        BundleError: the bundle is damaged, or has no engine that Triton can serve.
        InputError: the labels are for another model.
        OutputError: the target exists or cannot be written.
    """
    progress, target, options = progress or Silent(), Path(target), options or TritonOptions()
    with progress.stage("verify the bundle"):
        source = read_bundle(bundle.path if isinstance(bundle, Bundle) else bundle)
    contract = _contract(source, options)
    engine = choose_engine(source, options.backend)
    name = options.name or _default_name(str(source.manifest["model"]["id"]))
    delay_us = options.delay_us if options.delay_us is not None else choose_delay_us(source, engine)
    config = engine_config(name, source, contract, engine, delay_us=delay_us, instances=options.instances)
    with deploying("triton", source, target, force) as work, progress.stage("write the model repository"):
        _write_model(work / name, config, contract.labels)
        _copy_engine(source, engine, work / name / "1")
        _write_warmup(source, work / name / "warmup")
        (work / "README.md").write_text(readme_text(name, source, contract, engine, delay_us), encoding="utf-8")
    return read_deployment(target)


def _contract(bundle: Bundle, options: TritonOptions) -> Contract:
    contract = bundle.contract
    if options.labels is not None:
        if not contract.labels:
            raise UsageError("--labels: this bundle has no logits to name")
        contract = dataclasses.replace(contract, labels=read_labels(options.labels, len(contract.labels)))
    broken = next((label for label in contract.labels if len(label.splitlines()) != 1), None)
    if broken is not None:
        raise InputError(
            f"label {broken!r} cannot be one line of {LABELS}, where Triton looks names up by line; give other names "
            "with --labels"
        )
    return contract


def _default_name(model: str) -> str:
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", model.rstrip("/").rpartition("/")[2]).lstrip("_.-")
    return name or "vivit"


def _write_model(folder: Path, config: Message, labels: tuple[str, ...]) -> None:
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text(render(config), encoding="utf-8")
    if labels:
        (folder / LABELS).write_text("".join(f"{label}\n" for label in labels), encoding="utf-8")


def _copy_engine(bundle: Bundle, engine: Engine, folder: Path) -> None:
    listed: Mapping[str, Mapping[str, str]] = bundle.manifest["files"]
    for name, path in engine.files.items():
        shutil.copyfile(path, folder / name)
        if sha256_of(folder / name) != listed[path.relative_to(bundle.path).as_posix()]["sha256"]:
            raise BundleError(f"{path} changed while it was copied; run again on a bundle that nobody writes to")


def _write_warmup(bundle: Bundle, folder: Path) -> None:
    """Write the first golden clip as the bytes of the model's input; Triton repeats it to fill a batch."""
    if bundle.golden is None:
        return
    clip: npt.NDArray[Any] = golden_clips(bundle)[0][:1]
    contract = bundle.contract
    if contract.io.mode == "pixels":
        clip = Preprocessor(contract.clip, contract.preprocess).to_pixels(clip)
    folder.mkdir()
    (folder / contract.io.inputs[0].name).write_bytes(np.ascontiguousarray(clip).tobytes())
