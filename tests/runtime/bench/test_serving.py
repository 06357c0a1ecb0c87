"""A real server under load: what is counted is what it ran, and what ends a run."""

from __future__ import annotations

from typing import Any

import pytest
from triton_server import Served, free_port

from vivit_export.demo import clips_path
from vivit_export.errors import ClipError, EnvironmentFault, UsageError
from vivit_export.report.text import load_text
from vivit_export.runtime.bench import serving
from vivit_export.runtime.bench.serving import LoadFigures, bench_served

pytestmark = pytest.mark.needs_onnxruntime
LEFT = clips_path() / "left_320x240_25fps.mp4"


def clips_run(served: Served) -> int:
    return sum(size * count for size, count in served.executions("demo").items())


@pytest.mark.parametrize(("protocol", "query"), [("grpc", ""), ("http", ""), ("grpc", "?shared_memory=yes")])
def test_so_many_requests_are_in_flight_and_all_are_counted(served: Served, protocol: str, query: str) -> None:
    before = clips_run(served)
    report = bench_served(served.server.url("demo", protocol, query), in_flight=(1, 8), seconds=0.4)
    one, eight = report.in_flight["1"], report.in_flight["8"]
    assert clips_run(served) - before > one.requests + eight.requests  # and those of the warm-up
    for count, figures in ((1, one), (8, eight)):
        assert figures.requests >= count and figures.p99_ms >= figures.p95_ms >= figures.p50_ms > 0
        # Little's law: requests in flight = rate x mean latency, which is near the median here.
        assert figures.requests_per_second * figures.p50_ms / 1e3 < 3 * count
    told = report.to_json()
    assert told["request"] == "clip" and told["client"]["cores"] and not told["interrupted"]
    lines = load_text(report).splitlines()
    assert lines[0].split() == ["in", "flight", "clips", "clips/s", "p50", "ms", "p95", "p99"]
    assert [line.split()[0] for line in lines[1:3]] == ["1", "8"] and lines[3].startswith("Triton 2.51.0 at 127.0.0.1:")


def test_a_model_that_takes_videos_is_sent_one(served: Served) -> None:
    url = served.server.url("demo-video")
    report = bench_served(url, in_flight=(2,), seconds=0.2, video=LEFT)
    assert report.request == "video" and report.in_flight["2"].requests >= 2
    with pytest.raises(UsageError, match="this model takes videos; give one with video"):
        bench_served(url, in_flight=(1,), seconds=0.2)
    with pytest.raises(ClipError, match=r"none\.mp4 does not exist"):
        bench_served(url, in_flight=(1,), seconds=0.2, video=LEFT.with_name("none.mp4"))


@pytest.mark.parametrize(
    "options",
    [{"in_flight": ()}, {"in_flight": (1, 0)}, {"seconds": 0.0}, {"seconds": float("nan")}, {"seconds": 1e400}],
)
def test_numbers_that_make_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"in_flight must be 1 or more, and seconds=.* above 0"):
        bench_served("triton://127.0.0.1:1/demo", **options)


def test_a_server_that_is_not_there() -> None:
    with pytest.raises(EnvironmentFault, match="no Triton server answers"):
        bench_served(f"triton://127.0.0.1:{free_port()}/demo?timeout=5")


def test_what_was_measured_before_an_interrupt_is_kept(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def hold(_backend: object, _requests: object, in_flight: int, _seconds: float) -> LoadFigures:
        calls.append(in_flight)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return LoadFigures(1, 1.0, 1.0, 1.0, 1.0)

    monkeypatch.setattr(serving, "_hold", hold)
    report = bench_served(served.server.url("demo"), in_flight=(1, 2), seconds=1)
    assert report.interrupted and list(report.in_flight) == ["1"]
    assert load_text(report).splitlines()[-1].startswith("partial: ")
    calls[:] = [1, 1]
    with pytest.raises(KeyboardInterrupt):
        bench_served(served.server.url("demo"), in_flight=(1,), seconds=1)
