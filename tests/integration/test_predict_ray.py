"""``vivit predict --ray``: what it prints and refuses. `tests/datasets` runs it on real Ray."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from bundles import Bundles, need
from command_line import Cli, error_of

need("pyarrow", "ray")

from one_process import use_one_process  # noqa: E402  needs them
from tables import read_table  # noqa: E402

from vivit_export.demo import clips_path  # noqa: E402

pytestmark = pytest.mark.needs_onnxruntime
ADDRESS = "triton://127.0.0.1:8001/demo"


def test_a_run_prints_what_it_did(bundles: Bundles, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_one_process(monkeypatch)
    arguments = ("predict", bundles.demo().path, clips_path(), "--top-k", "1", "-q", "-o", tmp_path / "out")
    count = len(list(clips_path().glob("*.mp4")))
    said = cli(*arguments, "--ray").stdout
    assert said == f"{tmp_path / 'out'}  {count} rows of {count} videos, 0 clips unusable, in 1 partition\n"
    assert all(len(row["labels"]) == 1 for row in read_table(tmp_path / "out", "rows"))
    facts = json.loads(cli(*arguments, "--json", "--ray", "local").stdout)
    assert facts == {
        "path": str(tmp_path / "out"),
        "inputs": f"{count} videos",
        "partitions": 1,
        "done_before": 1,
        "rows": count,
        "faults": 0,
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--ray",), "a run on Ray writes its results to a folder; name it with --output DIR"),
        (("-o", "out"), "--output is for a run on Ray; give --ray too"),
        (("--gpu-share", "0.5"), "--gpu-share is for a run on Ray; give --ray too"),
        (("--ray", "-o", "out", "--gpu-share", "2"), "--gpu-share 2 must be above 0 and at most 1"),
        (
            ("--ray", "-o", "out", "--embedding", "e"),
            "--embedding is for a run in this process; leave it out with --ray",
        ),
        (("--ray", "-o", "out", "--spans"), "--spans is for a run in this process; leave it out with --ray"),
        (("-o", "out", "--ray", "clips/"), "'clips/' is not the address of a Ray cluster; write HOST:PORT, such as "),
        (("-o", "out", "--engine", ADDRESS, "--ray"), f"--ray runs engines on files; leave it out for {ADDRESS}"),
        (("-o", "out", "rtsp://camera/1", "--ray"), "--ray runs engines on files; leave it out for rtsp://camera/1"),
    ],
)
def test_what_has_no_meaning_is_refused(bundles: Bundles, cli: Cli, arguments: tuple[str, ...], said: str) -> None:
    assert said in error_of(cli("predict", bundles.demo().path, clips_path(), *arguments, code=2))


def test_a_served_model_is_refused(cli: Cli) -> None:
    result = cli("predict", ADDRESS, clips_path(), "-o", "out", "--ray", code=2)
    assert error_of(result) == f"--ray runs engines on files; leave it out for {ADDRESS}"


@pytest.mark.parametrize("package", ["ray", "pyarrow"])
def test_a_missing_package_is_named_with_its_extra(
    bundles: Bundles, cli: Cli, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(sys.modules):
        if name.startswith(("vivit_export.datasets", f"{package}.")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    result = cli("predict", bundles.demo().path, clips_path(), "-o", "out", "--ray", code=7)
    assert error_of(result) == (
        f"running on Ray needs the package {package}, which is not installed; install it with: "
        'pip install "vivit-export[ray]"'
    )
