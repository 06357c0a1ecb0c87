"""The tutorials, done from top to bottom as a reader would: every file written, every command run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import tutorials
from bundles import need
from capabilities import fetched

PAGES = {page.stem: page for page in sorted(tutorials.FOLDER.glob("*.md")) if page.stem != "index"}
ELSEWHERE = {"camera": "cpp/test_tutorial_camera.py"}
PACKAGES = {"many": ("onnxruntime", "ray")}


@pytest.mark.parametrize("name", sorted(PAGES.keys() - ELSEWHERE.keys() - {"triton"}))
def test_a_tutorial_works(name: str, tmp_path: Path, preloaded: Path) -> None:
    need("torch", *PACKAGES.get(name, ("onnxruntime",)))
    assert tutorials.follow(PAGES[name], tmp_path, commands=preloaded)


@pytest.fixture
def servers() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_the_tutorial_on_triton_works(tmp_path: Path, servers: ExitStack, preloaded: Path) -> None:
    """With the stand-in for its back ends."""
    need("torch", "onnxruntime", "tritonclient")
    home = tmp_path / "work"
    home.mkdir()
    start = tutorials.triton_start(fetched("fetch_triton.py", "tritonserver"), home, tmp_path, servers)
    printed = tutorials.follow(PAGES["triton"], home, start_server=start, commands=preloaded)
    assert printed.count('"label": "up"') + printed.count("up ") >= 2


def test_what_is_not_run_says_why_and_all_else_is() -> None:
    for page in PAGES.values():
        for block in tutorials.blocks(page):
            told = (
                block.title or block.is_run or block.language == "text" or block.remark.startswith("not run: it needs ")
            )
            assert told or block.remark == "starts the server", (page.name, block.text)


def test_a_tutorial_whose_command_fails_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    for block, said in (
        ("```sh\nfalse | true\n```\n", "false"),
        ("<!-- exits with 3 -->\n```sh\ntrue\n```\n", "true"),
        ("```sh\necho 12 clips\n```\n\n```text\n7 frames\n```\n", "'7 frames' is not in"),
        ("    ```sh\n", "a block is not understood"),
    ):
        page.write_text(block + ("```\n" if block.startswith(" ") else ""))
        with pytest.raises(AssertionError, match=said):
            tutorials.follow(page, tmp_path)
    page.write_text("```sh\necho 12 clips\n```\n\n```text\n7 clips\n```\n")
    assert tutorials.follow(page, tmp_path) == "12 clips\n"
