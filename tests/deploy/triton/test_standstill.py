"""A process that stood still while Triton waited ends itself: nobody gets the answer to somebody else's video."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from bundles import need

from vivit_export.demo import clips_path
from vivit_export.deploy.triton.standstill import Moment, Watch

need("tritonclient")
import tritonclient.grpc as triton  # noqa: E402
from triton_server import Served, TritonServer, running  # noqa: E402
from tritonclient.utils import InferenceServerException  # noqa: E402

VIDEOS = sorted(clips_path().glob("*.mp4"))


class Clocks:
    def __init__(self) -> None:
        self.steady = self.wall = self.used = 100.0

    def now(self) -> Moment:
        return Moment(self.steady, self.wall, self.used)

    def run(self, seconds: float, used: float | None = None, wall: float | None = None) -> None:
        self.steady += seconds
        self.wall += seconds if wall is None else wall
        self.used += seconds if used is None else used


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
def ended() -> list[str]:
    return []


@pytest.fixture
def watch(clocks: Clocks, ended: list[str]) -> Watch:
    """A watch without a thread."""
    return Watch(clocks.now, lambda: ended.append("ended"))


def test_work_that_goes_on_is_answered_however_long_it_takes(watch: Watch, clocks: Clocks, ended: list[str]) -> None:
    with watch.answering():
        clocks.run(20)  # in one call, which lets no other thread look
        watch.look()
        for _ in range(100):
            clocks.run(0.1, used=0)  # it waits for another model
            watch.look()
    assert not ended


def test_a_short_pause_is_answered(watch: Watch, clocks: Clocks, ended: list[str]) -> None:
    """A busy machine: Triton waits a second."""
    with watch.answering():
        clocks.run(0.8, used=0)
        watch.look()
    assert not ended


@pytest.mark.parametrize(("steady", "wall"), [(1.1, 1.1), (0.0, 2.0)])
def test_a_standstill_while_it_works(
    watch: Watch, clocks: Clocks, ended: list[str], steady: float, wall: float
) -> None:
    """The process was stopped, or the clock was set forward."""
    with watch.answering():
        clocks.run(steady, used=0.01, wall=wall)
        watch.look()  # by the thread, when the process runs again
        clocks.run(0.4)
        assert not ended  # nothing is half done
    assert ended


def test_an_error_after_a_standstill_is_an_answer_too(watch: Watch, clocks: Clocks, ended: list[str]) -> None:
    def work() -> None:
        with watch.answering():
            clocks.run(1.1, used=0)
            raise ValueError("bad")

    with pytest.raises(ValueError, match="bad"):
        work()
    assert ended


@pytest.mark.parametrize("looked_before", [True, False])
def test_a_request_that_came_while_it_stood_still(
    watch: Watch, clocks: Clocks, ended: list[str], looked_before: bool
) -> None:
    clocks.run(3, used=0)
    if looked_before:
        watch.look()
        clocks.run(0.05)
    with watch.answering():
        assert ended


def test_a_standstill_without_a_request_is_harmless(watch: Watch, clocks: Clocks, ended: list[str]) -> None:
    for _ in range(2):
        clocks.run(60, used=0)
        for _ in range(5):
            watch.look()
            clocks.run(0.1, used=0)
        with watch.answering():
            clocks.run(0.5)
    assert not ended


def test_the_thread_looks_until_it_is_told_to_stop() -> None:
    looks = []

    def now() -> Moment:
        looks.append(1)
        return Moment.now()

    watch = Watch(now, pytest.fail)
    watch.start()
    deadline = time.monotonic() + 10
    while len(looks) < 4 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(looks) >= 4
    watch.stop()
    time.sleep(0.2)
    seen = len(looks)
    time.sleep(0.3)
    assert len(looks) == seen


def ask(server: TritonServer, path: Path) -> str | npt.NDArray[np.float32]:
    """The logits, or why there are none."""
    rows = np.frombuffer(path.read_bytes(), np.uint8)[None]
    video = triton.InferInput("video", list(rows.shape), "UINT8")
    video.set_data_from_numpy(rows)
    with triton.InferenceServerClient(f"127.0.0.1:{server.grpc}") as client:
        try:
            logits: npt.NDArray[np.float32] = client.infer("demo-video", [video], client_timeout=60).as_numpy("logits")
            return logits
        except InferenceServerException as e:
            return str(e)


def fronts_of(server: TritonServer) -> list[int]:
    """The processes that read videos for the model ``demo-video``."""
    assert server.process is not None
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    found = [int(pid) for pid in children if b"/demo-frames/" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert found
    return found


def threads_of(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))


def stop_at_work(fronts: list[int]) -> int:
    """Stop the process that reads a video, and return it. It has threads then that it has not when it waits."""
    idle = {pid: threads_of(pid) for pid in fronts}
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        for pid in fronts:
            if threads_of(pid) > idle[pid]:
                os.kill(pid, signal.SIGSTOP)
                return pid
    raise AssertionError("none works")


def test_no_video_gets_the_answer_to_another_one(served: Served, tmp_path: Path) -> None:
    """A reader of a real server is stopped for longer than the server waits, and goes on."""
    with running(TritonServer(served.installed, served.backends, served.repositories[:1], tmp_path)) as server:
        known = [ask(server, path) for path in VIDEOS]
        fronts = fronts_of(server)
        with ThreadPoolExecutor() as pool:
            waiting = pool.submit(stop_at_work, fronts)
            time.sleep(0.1)
            given_up = pool.submit(ask, server, VIDEOS[0])
            stopped = waiting.result()
            time.sleep(2.5)
            os.kill(stopped, signal.SIGCONT)
            assert "is not healthy" in str(given_up.result())
        answers = [ask(server, path) for path in VIDEOS]
        assert server.is_running
        for answer, right in zip(answers, known, strict=True):
            if isinstance(answer, str):
                assert "is not healthy" in answer
            else:
                assert not isinstance(right, str)
                np.testing.assert_allclose(answer, right, rtol=0, atol=5e-6)
        assert "this process stood still while Triton waited for its answer" in server.log.read_text()
