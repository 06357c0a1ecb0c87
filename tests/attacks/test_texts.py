"""Names of models, labels, engines and files that hold what a terminal, browser, server or Markdown would obey."""

from __future__ import annotations

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from attacked import edit, make, within_limits
from click.testing import CliRunner
from google.protobuf import text_format
from made_records import engine_record

from vivit_export.bundle import Bundle, read_bundle
from vivit_export.cli import vivit
from vivit_export.cli.show import PredictionFormat
from vivit_export.cli.spans import SpanPrinter
from vivit_export.deploy.cpp.deploy import PROJECT, deploy_cpp
from vivit_export.deploy.listing import as_markdown
from vivit_export.deploy.triton.deploy import TritonOptions, deploy_triton
from vivit_export.errors import InputError
from vivit_export.printing import code_span
from vivit_export.report.html import render_html
from vivit_export.runtime.predict import VideoPrediction
from vivit_export.runtime.session.prediction import Prediction
from vivit_export.runtime.spans import SpanRule

TEXTS = {
    "an escape": "\x1b[2J\x1b]0;owned\x07",
    "a carriage return": "safe\rowned",
    "C1 controls": "\x9b31m",
    "a reversed direction": "\u202egnp.exe",
    "a NUL": "a\0b",
    "HTML": '</title><script>alert(1)</script><img src=x onerror="alert(1)">',
    "pbtxt": '"} parameters { key: "x" value { string_value: "y" } } #',
    "CMake": '")\nexecute_process(COMMAND touch owned)\n#',
    "a shell": "$(touch owned)`touch owned`; touch owned",
    "Markdown": "](javascript:alert(1)) ![x](http://x) <b> **b** `c` # h | t",
    "a template": "@ENGINES@ @INPUT@ {0} %s",
    "a path": "../../../../owned",
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("whole") / "bundle")


def attacked(whole: Path, to: Path, text: str) -> Bundle:
    """The bundle with the text as its model's name and as labels."""
    shutil.copytree(whole, to)

    def change(manifest: dict[str, Any]) -> None:
        manifest["model"]["id"] = text
        manifest["contract"]["labels"][0] = text

    edit(to, change)
    return read_bundle(to)


class Tags(HTMLParser):
    """Collects the names of all tags."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def handle_starttag(self, tag: str, _attributes: object) -> None:
        self.found.add(tag)


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_a_terminal_shows_it_and_a_browser_too(whole: Path, tmp_path: Path, text: str) -> None:
    bundle = attacked(whole, tmp_path / "b", text)
    with within_limits():
        result = CliRunner().invoke(vivit, ["inspect", str(bundle.path), "-q"])
    assert result.exit_code == 0, result.output
    assert not set(map(ord, result.output)) & {*range(10), *range(11, 32), *range(127, 160), 0x202E}
    tags, known = Tags(), Tags()
    tags.feed(render_html(bundle.manifest))
    known.feed(render_html(read_bundle(whole).manifest))
    assert tags.found == known.found


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_a_deployment_for_cpp_is_the_same_but_for_text(whole: Path, tmp_path: Path, text: str) -> None:
    bundle = attacked(whole, tmp_path / "b", text)
    with within_limits():
        app = deploy_cpp(bundle, tmp_path / "app").path
    readme = (app / "README.md").read_text(encoding="utf-8")
    assert readme.startswith(f"# {as_markdown(text)}".partition("@")[0])
    assert not set(map(ord, readme)) & {*range(10), *range(11, 32), *range(127, 160), 0x202E}
    assert (app / "CMakeLists.txt").read_bytes() == (PROJECT / "CMakeLists.txt").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["app", "b"]


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_tritons_configuration_says_it_as_text(whole: Path, tmp_path: Path, text: str) -> None:
    model_config_pb2 = pytest.importorskip("tritonclient.grpc").model_config_pb2
    bundle = attacked(whole, tmp_path / "b", text)
    options = TritonOptions(backend="onnxruntime")
    if len(text.splitlines()) != 1:
        with pytest.raises(InputError, match="cannot be one line of"):
            deploy_triton(bundle, tmp_path / "r", options)
        assert not (tmp_path / "r").exists()
        return
    made = deploy_triton(bundle, tmp_path / "r", options)
    (model,) = (path for path in made.path.iterdir() if path.is_dir())
    config = text_format.Parse((model / "config.pbtxt").read_text(encoding="utf-8"), model_config_pb2.ModelConfig())
    assert config.name == model.name and set(config.name) <= set("-_.") | set(map(chr, range(48, 123)))
    assert set(config.parameters) == {"vivit_contract", "vivit_onnx_sha256", "vivit_engine"}
    assert (model / "labels.txt").read_text(encoding="utf-8").splitlines()[0] == text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "r"]


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_an_error_about_a_file_of_that_name_is_one_harmless_line(tmp_path: Path, text: str) -> None:
    name = text.replace("/", "-").replace("\0", "-")[:200]
    result = CliRunner().invoke(vivit, ["inspect", str(tmp_path / name)])
    assert result.exit_code in (2, 3)
    assert not set(map(ord, result.output)) & {*range(10), *range(11, 32), *range(127, 160), 0x202E}
    assert "Traceback" not in result.output


@pytest.mark.parametrize("form", ["table", "csv", "vtt"])
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_spans_of_such_a_label_are_harmless_too(
    capsys: pytest.CaptureFixture[str], text: str, form: PredictionFormat
) -> None:
    show = SpanPrinter(form, 2, True, SpanRule())
    for second in range(3):
        prediction = Prediction(np.array([9, 0], np.float32), None, (text, "other"))
        show(VideoPrediction(Path(text.replace("\0", "")), prediction, (float(second), second + 1.0)))
    show.finish()
    printed = capsys.readouterr().out
    assert "3.0" in printed and not set(map(ord, printed)) & {*range(10), *range(11, 32), *range(127, 160), 0x202E}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_an_engine_cannot_have_it_as_its_version(text: str) -> None:
    with pytest.raises(InputError, match="which is not a version"):
        engine_record(version=text)
    span = code_span(text)
    (fence,) = re.findall("^`+", span)
    assert "\n" not in span and [run for run in re.findall("`+", span) if len(run) >= len(fence)] == [fence, fence]


def test_markdown_shows_ordinary_names_as_they_are() -> None:
    assert as_markdown("google/vivit-b-16x2-kinetics400") == "google/vivit-b-16x2-kinetics400"
    assert as_markdown("my_model (v2)") == "my_model (v2)"
    assert as_markdown("<b>[a](b)`c`") == r"\<b\>\[a\](b)\`c\`"
