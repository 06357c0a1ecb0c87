"""What is published: complete, without strays, and the same bytes twice."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from build_dist import absolute_links, build
from capabilities import missing

ROOT = Path(__file__).parents[2]
URL = "https://example.org/owner/vivit-export"


@pytest.fixture(scope="module", autouse=True)
def _any_owner() -> Iterator[None]:
    """Git reads a checkout of another user only if it is told so, as where a continuous integration mounts one."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("COUNT", "1"), ("KEY_0", "safe.directory"), ("VALUE_0", "*")):
            patch.setenv(f"GIT_CONFIG_{name}", value)
        yield


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The sdist and the wheel of the last commit."""
    if subprocess.run(["git", "rev-parse", "--verify", "HEAD"], cwd=ROOT, capture_output=True, check=False).returncode:
        missing("git", "this is not a clone, and git says what belongs to a release")
    sdist, wheel = build(URL, tmp_path_factory.mktemp("dist"))
    return sdist, wheel


def test_two_builds_give_the_same_bytes(
    dist: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = os.umask(0o077)
    try:
        monkeypatch.setenv("TZ", "Asia/Tokyo")
        again = build(URL, tmp_path)
    finally:
        os.umask(before)
    assert [path.name for path in again] == [path.name for path in dist]
    for first, second in zip(dist, again, strict=True):
        assert first.read_bytes() == second.read_bytes(), first.name


def test_the_wheel_has_the_package_and_nothing_else(dist: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(dist[1]) as archive:
        names = set(archive.namelist())
    package = {name for name in names if ".dist-info/" not in name}
    assert package == {name for name in at_head() if name.startswith("vivit_export/")}
    for needed in ("py.typed", "bundle/schemas/bundle.schema.json", "deploy/cpp/project/CMakeLists.txt",
                   "demo/clips/labels.json", "demo/checkpoint/model.safetensors"):  # fmt: skip
        assert f"vivit_export/{needed}" in package


def test_the_sdist_is_the_repository(dist: tuple[Path, Path]) -> None:
    with tarfile.open(dist[0]) as tar:
        names = {member.name.partition("/")[2] for member in tar if member.isfile()}
    made = {name for name in names if ".egg-info/" in name} | {"PKG-INFO", "setup.cfg"}
    left_out = {".gitignore", ".pre-commit-config.yaml"} | {n for n in at_head() if n.startswith((".ci/", ".github/"))}
    assert names - made == at_head() - left_out


def at_head() -> set[str]:
    done = subprocess.run(
        ["git", "ls-tree", "-r", "--name-only", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(done.stdout.split("\n")) - {""}


def test_its_tests_can_be_collected(dist: tuple[Path, Path], tmp_path: Path) -> None:
    with tarfile.open(dist[0]) as tar:
        tar.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment["PYTHONPATH"] = str(folder)
    # Files that import no torch show that helpers are there, in a tenth of the time.
    wanted = [
        "tests/bundle",
        "tests/deploy",
        "tests/report",
        "tests/tools/test_build_dist.py",
        "tests/test_contract.py",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *wanted],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_index_page_has_no_relative_link(dist: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(dist[1]) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith(".dist-info/METADATA")]
        text = archive.read(name).decode()
    head, _, page = text.partition("\n\n")
    assert f"Project-URL: Repository, {URL}" in head
    assert "Description-Content-Type: text/markdown" in head
    assert not re.findall(r"\]\((?!https?:)[^)]*\)", page)
    assert f"({URL}/raw/v0.1.0/docs/report.png)" in page
    assert f"[glossary]({URL}/blob/v0.1.0/docs/glossary.md)" in page


def test_links() -> None:
    text = "[a](docs/a.md#b) ![p](docs/p.png) [x](https://x.org) [here](#below)"
    assert absolute_links(text, "U", "v1") == (
        "[a](U/blob/v1/docs/a.md#b) ![p](U/raw/v1/docs/p.png) [x](https://x.org) [here](#below)"
    )
