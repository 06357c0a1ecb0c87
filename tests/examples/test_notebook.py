"""The notebook, run from top to bottom in a real kernel, and looked at."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from bundles import need
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "examples/tour.ipynb"


def read() -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call, no-any-return]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """All that each cell showed, by its source, as HTML where it has some."""
    need("torch", "onnxruntime", "jinja2")
    book = read()
    folder = tmp_path_factory.mktemp("notebook")
    NotebookClient(book, timeout=300, resources={"metadata": {"path": str(folder)}}).execute()
    return {cell.source: "".join(map(shown, cell.outputs)) for cell in book.cells if cell.cell_type == "code"}


def shown(output: nbformat.NotebookNode) -> str:
    data = output.get("data", {})
    return str(data.get("text/html") or data.get("text/plain") or output.get("text", ""))


def of(outputs: dict[str, str], part: str) -> str:
    (found,) = (text for source, text in outputs.items() if part in source)
    return found


@pytest.mark.needs_onnxruntime
def test_the_export_shows_its_progress_and_its_report(outputs: dict[str, str]) -> None:
    text = of(outputs, "export_model")
    assert "load the checkpoint" in text and "trace the network" in text
    assert '<iframe title="&lt;Bundle out/notebook: demo in fp16, no engine&gt;"' in text


@pytest.mark.needs_onnxruntime
def test_cells_show_what_the_notebook_tells(outputs: dict[str, str]) -> None:
    assert of(outputs, "bundle.contract") == "<Contract: 8 frames of 64x64 by uniform, 8 labels>"
    assert "  signature  none" in of(outputs, "ve.inspect")
    assert re.search(r"'down_180x320_24fps.mp4',\s+<Prediction: down [\d.]+ %", of(outputs, "read_clip"))
    assert "passed" in of(outputs, "ve.check") and "<table>" in of(outputs, "ve.check")
    assert "clips/s" in of(outputs, "ve.bench")


def test_the_notebook_is_kept_without_results() -> None:
    book = read()
    nbformat.validate(book)
    assert not [cell for cell in book.cells if cell.get("outputs") or cell.get("execution_count")]
