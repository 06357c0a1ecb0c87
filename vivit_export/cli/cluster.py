"""The options of runs on Ray, and what they print."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from vivit_export.cli.options import grouped
from vivit_export.cli.show import show_json, show_text
from vivit_export.cli.values import PATH
from vivit_export.errors import UsageError, counted, option
from vivit_export.runtime.session.triton.address import is_address

if TYPE_CHECKING:
    from vivit_export.bundle.checks import DriftReport
    from vivit_export.calibration.collect import Observing
    from vivit_export.choices import CpuPrecision, Decode
    from vivit_export.cli.check import CheckChoice
    from vivit_export.cli.options import SamplingChoice
    from vivit_export.datasets.runs import Summary
    from vivit_export.progress import Progress
    from vivit_export.runtime.clips.windows import Unit

# Options of predict that a run on Ray does not have: it writes tables.
NOT_ON_RAY = (
    *("embedding", "force", "form", "on_late", "timeout", "reconnect"),
    *("spans", "span_on", "span_off", "span_shortest", "span_bridge"),
)


class RayChoice(NamedTuple):
    """Where a run takes place; None: in this process."""

    ray: str | None
    output: Path | None
    gpu_share: float | None

    def refuse_without_ray(self) -> None:
        """Refuse what has no meaning in this process.

        Raises:
            UsageError: it is given.
        """
        for name in ("output", "gpu_share"):
            if getattr(self, name) is not None:
                raise UsageError(f"{option(name)} is for a run on Ray; give {option('ray')} too")

    def require_output(self) -> Path:
        """Return the folder of results.

        Raises:
            UsageError: there is none.
        """
        if self.output is None:
            raise UsageError(f"a run on Ray writes its results to a folder; name it with {option('output', 'DIR')}")
        return self.output


class RayPlace(NamedTuple):
    """Where the clips of a calibration are run; None: in this process."""

    ray: str | None
    gpu_share: float | None

    def observing(self, progress: Progress) -> Observing | None:
        """Return where; None: in this process.

        Raises:
            UsageError: the options conflict, or the address is none.
            MissingDependencyError: Ray is not installed.
        """
        if self.ray is None:
            RayChoice(None, None, self.gpu_share).refuse_without_ray()
            return None
        from vivit_export.datasets.calibrate import ObservingOnRay

        return ObservingOnRay(self.ray, 1.0 if self.gpu_share is None else self.gpu_share, progress)


_ray_option = click.option(
    "--ray",
    is_flag=False,
    flag_value="",
    metavar="[ADDRESS]",
    help="Run on Ray: on the cluster at HOST:PORT, or local.  [default: $RAY_ADDRESS, or local]",
)
_gpu_share_option = click.option(
    "--gpu-share", type=float, help="Ray: share of a GPU that an engine takes.  [default: 1]"
)
ray_options = grouped(
    "cluster",
    RayChoice,
    _ray_option,
    click.option("-o", "--output", type=PATH, metavar="DIR", help="Ray: folder for the results; a rerun goes on."),
    _gpu_share_option,
)
ray_place_options = grouped("cluster", RayPlace, _ray_option, _gpu_share_option)


class Asked(NamedTuple):
    """What is predicted, and how; as the options of ``vivit predict`` say."""

    bundle: Path | str
    videos: tuple[Path | str, ...]
    sampling: SamplingChoice
    window: tuple[float, Unit] | None
    hop: tuple[float, Unit] | None
    labels: Path | None
    engine: str | None
    device: str | None
    cpu_precision: CpuPrecision | None
    self_test: bool
    decode: Decode
    readers: int | None
    top_k: int
    require_signature: tuple[Path, ...]
    identity: str | None


def predict_on_ray(cluster: RayChoice, asked: Asked, as_json: bool, progress: Progress) -> None:
    """Predict on Ray, print a summary, and fail if a clip could not be used.

    Raises:
        UsageError: the options conflict; or a served model or live video, which are not run here.
        ClipError: clips could not be used; the others are predicted.
    """
    output = cluster.require_output()
    places = [video for video in asked.videos if isinstance(video, Path)]
    for address in (asked.bundle, asked.engine, *(video for video in asked.videos if isinstance(video, str))):
        if isinstance(address, str) and (address is not asked.engine or is_address(address)):
            raise UsageError(f"{option('ray')} runs engines on files; leave it out for {address}")
    from vivit_export.bundle import Bundle
    from vivit_export.datasets.cluster import choose_address
    from vivit_export.datasets.predict import predict_dataset
    from vivit_export.runtime.predict import adapt_contract, read_source, window_rule

    where = choose_address(cluster.ray or "")
    windows = window_rule(asked.window, asked.hop, asked.sampling.views)
    source, own_contract = read_source(asked.bundle, progress, asked.require_signature or None, asked.identity)
    assert isinstance(source, Bundle)
    summary = predict_dataset(
        source,
        places,
        output,
        contract=adapt_contract(own_contract, labels=asked.labels, **asked.sampling._asdict()),
        windows=windows,
        engine=asked.engine,
        device=asked.device,
        cpu_precision=asked.cpu_precision,
        self_test=asked.self_test,
        decode=asked.decode,
        readers=asked.readers,
        top_k=asked.top_k,
        signed_by=asked.require_signature,
        identity=asked.identity,
        address=where,
        gpu_share=1.0 if cluster.gpu_share is None else cluster.gpu_share,
        progress=progress,
    )
    show_summary(summary, as_json)
    summary.require()


class RunsOn(NamedTuple):
    """What a check runs on, and how it reads."""

    engine: str | None
    device: str | None
    cpu_precision: CpuPrecision | None
    decode: Decode
    readers: int | None
    require_signature: tuple[Path, ...]
    identity: str | None


def check_on_ray(
    cluster: RayChoice, bundle: Path, which: CheckChoice, on: RunsOn, progress: Progress
) -> tuple[DriftReport, Summary]:
    """Check on Ray; clips that could not be used are not in the report.

    Raises:
        UsageError: the options conflict; or a served model, which is not run here.
    """
    output = cluster.require_output()
    if which.per_block:
        raise UsageError(f"{option('per_block')} looks into single clips in one process; leave out {option('ray')}")
    if which.against == "golden" or which.clips is None:
        raise UsageError(f"a run on Ray checks on videos, against the eager model; name them with {option('clips')}")
    if on.engine is not None and is_address(on.engine):
        raise UsageError(f"{option('ray')} runs engines on files; leave it out for {on.engine}")
    from vivit_export.bundle import Bundle
    from vivit_export.datasets.check import check_dataset
    from vivit_export.datasets.cluster import choose_address
    from vivit_export.runtime.predict import read_source

    where = choose_address(cluster.ray or "")
    source, _ = read_source(bundle, progress, on.require_signature or None, on.identity)
    assert isinstance(source, Bundle)
    return check_dataset(
        source,
        which.clips,
        output,
        checkpoint=which.checkpoint,
        num_clips=which.num_clips,
        gate=which.gate,
        labels=which.labels,
        views=which.views,
        baseline=which.baseline,
        engine=on.engine,
        device=on.device,
        cpu_precision=on.cpu_precision,
        decode=on.decode,
        readers=on.readers,
        signed_by=on.require_signature,
        identity=on.identity,
        address=where,
        gpu_share=1.0 if cluster.gpu_share is None else cluster.gpu_share,
        progress=progress,
    )


def show_summary(summary: Summary, as_json: bool) -> None:
    """Print what a run on Ray has done."""
    if as_json:
        show_json(summary.to_json())
        return
    before = f" ({summary.done_before} of them by an earlier run)" if summary.done_before else ""
    show_text(
        f"{summary.path}  {counted(summary.rows, 'rows')} of {summary.inputs}, "
        f"{counted(summary.faults, 'clips')} unusable, in {counted(summary.partitions, 'partitions')}{before}"
    )
