"""A bench result is saved in the bundle that was timed, whatever else was added to that meanwhile."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from made_bundle import make_bundle
from made_records import engine_record

from vivit_export.bundle import Bundle, read_bundle, write_manifest
from vivit_export.bundle.bench import Machine
from vivit_export.errors import OutputError
from vivit_export.export.bench import save_bench
from vivit_export.progress import Silent
from vivit_export.runtime.bench.report import BenchReport, ContenderTimes

TIMES = {1: [0.1, 0.1, 0.1]}
REPORT = BenchReport(
    (ContenderTimes("onnxruntime-cpu", seconds=TIMES, cpu_seconds=TIMES),),
    3,
    False,
    Machine("a processor", 2, 0.0, "Linux", "3.11"),
)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_bundle(tmp_path / "bundle", batches=(), golden=False)


def test_what_was_added_meanwhile_stays(bundle: Bundle) -> None:
    (bundle.path / "engines/new.plan").write_bytes(b"engine")
    write_manifest(bundle.path, replace(bundle.manifest.content, engines={"new": engine_record()}))
    save_bench(bundle, REPORT, Silent())
    after = read_bundle(bundle.path)
    assert after.manifest.bench == REPORT.record()
    assert after.engines.keys() == {"new"}


def test_times_of_another_graph_are_not_saved(bundle: Bundle) -> None:
    bundle.model.write_bytes(b"another graph")
    write_manifest(bundle.path, bundle.manifest.content)
    with pytest.raises(OutputError, match=r"was changed while it was timed, so the result was not saved; run again"):
        save_bench(bundle, REPORT, Silent())
    assert read_bundle(bundle.path).manifest.bench is None


def test_times_of_an_engine_that_was_rebuilt_are_not_saved(bundle: Bundle) -> None:
    (bundle.path / "engines/x.plan").write_bytes(b"engine")
    write_manifest(bundle.path, replace(bundle.manifest.content, engines={"x": engine_record()}))
    timed = read_bundle(bundle.path)
    write_manifest(bundle.path, replace(bundle.manifest.content, engines={"x": engine_record(sms=(120,))}))
    with pytest.raises(OutputError, match="was changed while it was timed"):
        save_bench(timed, REPORT, Silent())
