"""Fixtures for all tests, and the markers of what a machine may lack."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
from bundles import need
from capabilities import pytest_configure, pytest_runtest_setup  # noqa: F401  hooks
from command_line import cli, demo_bundle, demo_export  # noqa: F401  fixtures
from exporter import EXPORTER, is_for_torch
from fake_nvidia_smi import smi  # noqa: F401  fixture
from hub_server import hub  # noqa: F401  fixture
from preloaded import forked_workers, preloaded  # noqa: F401  fixture
from shared import shared_folder
from simulated_tensorrt import tensorrt_bindings, tensorrt_libraries, tensorrt_version  # noqa: F401  fixtures
from small_bundle import home  # noqa: F401  fixture
from small_disk import small_disk  # noqa: F401  fixture
from traces import _trace_once, traced_anew  # noqa: F401  fixtures

os.environ["HF_HUB_OFFLINE"] = "1"  # read once, when huggingface_hub is imported, which nothing above does
# A machine that others use too may take seconds for what takes milliseconds.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")
# Threads that wait for each other in turns cost more than they gain: measured, 1.5 times the processor time.
if _workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // _workers)))
# Ignored in a shell's background jobs, which what tests start and interrupt would inherit.
for _number, _usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _usual)

if TYPE_CHECKING:
    from bundles import Bundles
    from checkpoints import Checkpoints
    from triton_server import Served

    from vivit_export.export.checkpoint.load import Checkpoint


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Without torch, leave out what cannot be imported."""
    return True if EXPORTER and collection_path.suffix == ".py" and is_for_torch(collection_path) else None


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Calibrations keep their observations in a folder of these tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Checkpoints:
    """Tiny checkpoints with random weights; each is made, loaded and traced once."""
    need("torch")
    from checkpoints import Checkpoints

    return Checkpoints(tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Bundles:
    """Exported demo bundles, shared by all tests and all processes of a run."""
    from bundles import Bundles

    root = shared_folder(tmp_path_factory) / "demo-bundles"
    root.mkdir(exist_ok=True)
    return Bundles(root)


@pytest.fixture(scope="session")
def demo_checkpoint() -> Checkpoint:
    """The trained checkpoint that comes with the package; not to be modified."""
    need("torch")
    from vivit_export.export.checkpoint.load import load_checkpoint

    return load_checkpoint("demo")


@pytest.fixture(scope="session")
def served(bundles: Bundles, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A real tritonserver with what ``vivit deploy triton`` made of the demo; one for all tests."""
    from triton_server import serve_demo

    with serve_demo(bundles, tmp_path_factory.mktemp("triton")) as serving:
        yield serving
