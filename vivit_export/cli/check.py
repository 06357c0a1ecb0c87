"""``vivit check``: measure drift, or put two stored runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, get_args

import click

from vivit_export.choices import Against, CpuPrecision, Decode
from vivit_export.cli.cluster import RayChoice, RunsOn, check_on_ray, ray_options
from vivit_export.cli.command import Command
from vivit_export.cli.compare import compare_stored
from vivit_export.cli.options import grouped, output_options, reading_options, session_options, signature_options
from vivit_export.cli.show import CheckFormat, show_report
from vivit_export.cli.values import BUNDLE, FILE, PATH, refuse_given
from vivit_export.cli.values import views as parse_views
from vivit_export.errors import UsageError, option
from vivit_export.hub import require_not_cached

if TYPE_CHECKING:
    from vivit_export.bundle.checks import DriftReport
    from vivit_export.progress import Silent

_OF_RUN = (
    *("engine", "device", "cpu_precision", "against", "clips", "num_clips", "checkpoint", "gate", "labels"),
    *("views", "baseline", "per_block", "save", "decode", "readers", "ray", "output", "gpu_share"),
    *("require_signature", "identity"),
)


class CheckChoice(NamedTuple):
    """What a check compares, on which clips."""

    against: Against | None
    clips: Path | None
    num_clips: int | None
    checkpoint: str | None
    gate: str | None
    labels: Path | None
    views: tuple[int, int] | None
    per_block: bool
    baseline: Path | None


_check_options = grouped(
    "which",
    CheckChoice,
    click.option(
        "--against",
        type=click.Choice(get_args(Against)),
        help="Compare with the golden clips or the eager model.  [default: golden]",
    ),
    click.option("--clips", type=PATH, help="Videos to check on; compares with the eager model."),
    click.option("--num-clips", type=int, help="Check on at most this many clips."),
    click.option(
        "--checkpoint", metavar="MODEL", help="Checkpoint that BUNDLE was exported from, for the eager model."
    ),
    click.option("--gate", metavar="LIMITS", help="Drift limits, e.g. top1=0.99,max=0.02.  [default: the bundle's]"),
    click.option("--labels", type=FILE, help="File with a clip and its label in each line: how often both are right."),
    click.option(
        "--views",
        callback=parse_views,
        metavar="TxS",
        help="Average T temporal and S spatial views of each video of --clips.",
    ),
    click.option("--per-block", is_flag=True, help="Also show where drift begins, from the embeddings to the logits."),
    click.option("--baseline", type=FILE, help="Report (JSON) of an earlier check; fail if this one is worse."),
)


@click.command(
    cls=Command,
    examples=(
        "vivit check out/demo",
        "vivit check out/demo --clips path/to/videos --labels labels.csv --report drift.html",
        "vivit check out/demo --baseline last.json --format junit",
        "vivit check before --compare after",
        "vivit check out/demo --clips path/to/many/videos -o out/drift --ray",
    ),
)
@click.argument("bundle", type=BUNDLE)
@session_options
@_check_options
@click.option(
    "--format",
    "form",
    type=click.Choice(get_args(CheckFormat)),
    help="How to print the result; junit and github are for continuous integration.  [default: text]",
)
@click.option("--compare", type=BUNDLE, help="Only compare the stored results of BUNDLE with those of this later run.")
@click.option("--report", type=FILE, help="Also write the result to this file: a page (.html), .json or .txt.")
@click.option("--force", is_flag=True, help="Replace the file of --report if it exists.")
@click.option("--save", is_flag=True, help="Add the result to BUNDLE and its report.")
@reading_options
@ray_options
@signature_options
@output_options
def check(
    bundle: Path,
    engine: str | None,
    device: str | None,
    cpu_precision: CpuPrecision | None,
    which: CheckChoice,
    form: CheckFormat | None,
    compare: Path | None,
    report: Path | None,
    force: bool,
    save: bool,
    decode: Decode,
    readers: int | None,
    cluster: RayChoice,
    require_signature: tuple[Path, ...],
    identity: str | None,
    as_json: bool,
    progress: Silent,
) -> None:
    """Measure the drift of BUNDLE on this machine; exit with 5 if it is beyond the gate.

    Compares with the golden clips in the bundle (needs no torch), or with the eager model. --json is --format json.

    --compare runs nothing: it puts what two bundles, or the report.json of two runs, say of one model side by side, and
    exits with 5 if the later one is beyond its gate or was not checked.

    With --ray, --clips may be of any size, also a list of paths (.txt, .csv, .tsv, .parquet) or webdataset shards
    (.tar). The results of each clip are written to tables in -o; if a run is cut short, the same command goes on.
    """
    from vivit_export.bundle import read_bundle
    from vivit_export.export.recheck import save_check
    from vivit_export.report.check_file import check_report_file, write_check_report
    from vivit_export.report.html import golden_pictures

    form = _form(form, as_json)
    if force and report is None:
        raise UsageError(f"{option('force')} replaces the file that {option('report')} writes; give both")
    if compare is not None:
        refuse_given("is for a check that runs; drop it with --compare", only=_OF_RUN)
        compare_stored(bundle, compare, form, report, force)
        return
    if report is not None:
        check_report_file(report, force)
    source = read_bundle(bundle, verify=False)
    if save:
        require_not_cached(source.path)
    on = RunsOn(engine, device, cpu_precision, decode, readers, require_signature, identity)
    summary = None
    if cluster.ray is not None:
        found, summary = check_on_ray(cluster, bundle, which, on, progress)
    else:
        cluster.refuse_without_ray()
        found = _check_here(bundle, which, on, progress)
    show_report(found, form, str(bundle))
    if report is not None:
        pictures = golden_pictures(source.path, source.manifest.content, found)
        write_check_report(report, source.manifest.content, found, force=force, pictures=pictures)
    if save:
        save_check(source, found, progress)
    found.require()
    if summary is not None:
        summary.require()


def _check_here(bundle: Path, which: CheckChoice, on: RunsOn, progress: Silent) -> DriftReport:
    from vivit_export.export.recheck import check as run

    return run(
        bundle,
        which.clips,
        against=which.against,
        checkpoint=which.checkpoint,
        num_clips=which.num_clips,
        gate=which.gate,
        labels=which.labels,
        views=which.views,
        baseline=which.baseline,
        per_block=which.per_block,
        decode=on.decode,
        readers=on.readers,
        engine=on.engine,
        device=on.device,
        cpu_precision=on.cpu_precision,
        require_signature=on.require_signature or None,
        identity=on.identity,
        progress=progress,
    )


def _form(form: CheckFormat | None, as_json: bool) -> CheckFormat:
    if as_json and form not in (None, "json"):
        raise UsageError(f"{option('json')} is {option('format', 'json')}; leave it out, or {option('format', form)}")
    return form or ("json" if as_json else "text")
