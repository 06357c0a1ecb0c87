"""The bundles that `gpu.py` times: made where there are none, with an engine of each flavour that compiles."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from common import load_tool, write_crops
from plan import FAMILIES

from vivit_export.calibration.options import CalibrationOptions
from vivit_export.errors import VivitExportError
from vivit_export.precision import Precision
from vivit_export.progress import Console
from vivit_export.runtime.select import CPU_ENGINES, ORDER

FLAVOURS = ("tensorrt", "tensorrt-rtx")
ENGINE_BATCHES = (1, 8, 32)
_GOLDEN_CLIPS = 2


def make_bundle(
    checkpoint: Path, target: Path, precision: str, device: str, leave_out: Callable[[str, str], None]
) -> dict[str, Any]:
    """Export a checkpoint unless that was done, checked where that is possible, and compile its engines.

    INT8 and FP8 are calibrated on as few rendered clips as are allowed: speed does not depend on them.

    Args:
        checkpoint: its folder.
        target: the bundle to make, or one that is there.
        precision: one of `Precision`.
        device: ``cuda`` or ``cpu``, where no engine is compiled.
        leave_out: receives what could not be done, and why.

    Returns:
        What the build found on this GPU, by engine name.

    Raises:
        VivitExportError: the export failed.
    """
    import vivit_export as ve

    if not (target / "bundle.json").exists():
        options: dict[str, Any] = {"precision": precision, "targets": ("onnx",), "attention": "pattern"}
        if Precision(precision) in (Precision.INT8, Precision.FP8):
            crops = write_crops(checkpoint, target.with_suffix(".clips.safetensors"))
            options["calibration"] = CalibrationOptions((crops,))
        try:
            ve.export_model(str(checkpoint), target, **options, num_clips=_GOLDEN_CLIPS, progress=Console())
        except (VivitExportError, ImportError) as e:
            leave_out("drift", str(e))
            ve.export_model(str(checkpoint), target, **options, check=False, progress=Console())
    return compile_engines(target, device, leave_out)


def compile_engines(target: Path, device: str, leave_out: Callable[[str, str], None]) -> dict[str, Any]:
    """Compile the engine of each flavour that a bundle lacks, on a GPU; see `make_bundle`."""
    import vivit_export as ve
    from vivit_export.export.build import build_engines

    made = ve.read_bundle(target).engines
    for flavour in FLAVOURS if device == "cuda" else ():
        if any(engine.flavour == flavour for engine in made.values()):
            continue
        try:
            build_engines(target, (flavour,), batches=ENGINE_BATCHES, allow_unfused=True, progress=Console())
        except (VivitExportError, ImportError) as e:
            leave_out(flavour, str(e))
    return {name: e.verified_on for name, e in ve.read_bundle(target).engines.items() if e.verified_on}


def make_family(title: str, folder: Path) -> Path:
    """Make a random checkpoint of a family in the size of `plan.FAMILIES`, unless that was done; its folder."""
    family, fields = FAMILIES[title]
    if not (folder / "config.json").exists():
        load_tool("make_checkpoint").make_other(family, folder, **fields)
    return folder


def engines_on(device: str) -> list[str]:
    """The engines of a device, best first."""
    return [str(name) for name in ORDER if (name in CPU_ENGINES) == (device == "cpu")]


def contenders(title: str, bundle: Path, device: str) -> dict[str, list[str]]:
    """The commands of `take_turns` for a bundle in every engine of a device."""
    worker = "vivit_export.runtime.bench.worker"
    return {f"{title}, {engine}": ["-m", worker, str(bundle), engine, device] for engine in engines_on(device)}


def pytorch(checkpoint: Path, kinds: Iterable[str], device: str) -> dict[str, list[str]]:
    """The commands of `take_turns` for PyTorch's network of a checkpoint."""
    worker = "vivit_export.export.eager_worker"
    return {f"pytorch {kind}": ["-m", worker, "", str(checkpoint), kind, device] for kind in kinds}
