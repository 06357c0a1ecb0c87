"""Predict any number of videos on Ray."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from vivit_export.bundle import MANIFEST, Bundle
from vivit_export.choices import CpuPrecision, Decode
from vivit_export.contract import Contract
from vivit_export.datasets.cluster import choose_address, require_share
from vivit_export.datasets.engine import Engine
from vivit_export.datasets.inputs import find_inputs
from vivit_export.datasets.runs import Summary, run_dataset
from vivit_export.datasets.tables import rows_schema
from vivit_export.datasets.work import Job
from vivit_export.files import as_path, sha256_of
from vivit_export.progress import Progress
from vivit_export.runtime.clips.views import ViewCropper
from vivit_export.runtime.clips.windows import WindowRule


def predict_dataset(
    bundle: Bundle,
    places: Sequence[Path],
    output: str | Path,
    *,
    contract: Contract,
    windows: WindowRule | None = None,
    engine: str | None = None,
    device: str | None = None,
    cpu_precision: CpuPrecision | None = None,
    self_test: bool = True,
    decode: Decode = "auto",
    readers: int | None = None,
    top_k: int = 5,
    signed_by: Sequence[Path] = (),
    identity: str | None = None,
    address: str = "",
    gpu_share: float = 1.0,
    progress: Progress,
) -> Summary:
    """Predict videos on Ray; what an interrupted run has done is not done again.

    Args:
        bundle: a verified bundle, in a folder that all machines see.
        places: see `find_inputs`; all machines see the videos by these names.
        output: folder of results, which this process writes.
        contract: of the bundle, or with other labels or sampling.
        windows: predict windows instead of whole videos.
        engine: see `open_session`, as ``device``, ``cpu_precision`` and ``self_test``.
        device: see there.
        cpu_precision: see there.
        self_test: see there.
        decode: how much of each video is decoded.
        readers: tasks that read at once; None: one per CPU.
        top_k: how many labels a row names.
        signed_by: see `open_session`, as ``identity``.
        identity: see there.
        address: see `choose_address`.
        gpu_share: share of a GPU that an engine takes, above 0 to 1.
        progress: receives each stage.

    Raises:
        UsageError: an option is out of range.
        ClipError: there is nothing to run.
        OutputError: the folder holds something else, or the disk is full.
        EnvironmentFault: Ray or the engine is not available.
        KeyboardInterrupt: interrupted; whole partitions are kept.
    """
    require_share(gpu_share)
    where, path = choose_address(address), as_path(output, "output")
    if windows is None:
        ViewCropper(contract)  # views that are impossible are no fault of a clip
    with progress.stage("find the inputs"):
        inputs = find_inputs(places, progress.note)
    job = Job(
        os.getcwd(), str(bundle.path.absolute()), sha256_of(bundle.path / MANIFEST), contract, windows, engine, device,
        cpu_precision, self_test, decode, tuple(p.absolute() for p in signed_by), identity, top_k,
    )  # fmt: skip
    done = run_dataset(
        Engine,
        job,
        inputs,
        path,
        schema=lambda _probe: rows_schema(contract),
        verb="predict",
        address=where,
        gpu_share=gpu_share,
        readers=readers,
        progress=progress,
    )
    return done.summary
