"""Names that no file can have, wherever the command line or Python takes a name: a sentence, at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from attacked import SMALL, make
from command_line import Cli, error_of
from videos import contract

import vivit_export as ve
from vivit_export.demo import clips_path
from vivit_export.errors import UsageError
from vivit_export.export.options import ExportOptions, preview_export
from vivit_export.runtime import Preprocessor, find_clips, read_clip

NAMES = {
    "300 characters": "n" * 300,
    "300 characters after an owner": "owner/" + "n" * 300,
    "300 characters in a folder": "/tmp/" + "n" * 300,
    "200 folders": "/".join("d" * 100 for _ in range(200)),
    "the home of nobody": "~nobody-of-that-name/x",
}
CLIP = str(next(clips_path().glob("left*")))
VERBS = (
    "export {} --target onnx",
    "export {} --target onnx --fp16 --dry-run",
    "export demo -o x --target onnx --dry-run --clips {}",
    "export demo -o x --target onnx --dry-run --int8 --ranges {}",
    "export demo -o x --target onnx --dry-run --int8 --calibration-data {}",
    "export demo -o x --dry-run --timing-cache {}/x",
    "calibrate {} --calibration-data .",
    "calibrate demo --calibration-data {}",
    f"predict {{}} {CLIP}",
    "predict bundle {}",
    f"predict bundle {CLIP} --labels {{}}",
    "check {}",
    "check bundle --clips {}",
    f"check bundle --clips {CLIP} --checkpoint {{}}",
    "bench {}",
    "inspect {}",
    "build {}",
    "convert scenic {} -o x",
    "deploy cpp {} app",
    "deploy triton {} repository",
)
OUTPUTS = (
    "export demo --target onnx --dry-run -o {}",
    "calibrate demo --calibration-clips 1 -o {}",
    f"predict bundle {CLIP} --embedding {{}}",
    "convert scenic bundle -o {}",
    "deploy cpp bundle {}",
    "deploy triton bundle {}",
)


@pytest.fixture
def run(cli: Cli) -> Cli:
    """Runs a command beside a small bundle."""
    make(Path("bundle"))
    return cli


@pytest.mark.parametrize("line", VERBS)
def test_an_input_of_that_name_is_no_input(run: Cli, line: str) -> None:
    for name in NAMES.values():
        said = error_of(run(*(part.format(name) for part in line.split()), code=3))
        assert name[:100] in said, said[:300]  # the end of a long one is not printed


@pytest.mark.parametrize("line", OUTPUTS)
def test_an_output_of_that_name_is_refused_before_the_work(run: Cli, line: str) -> None:
    for name in ("n" * 300, "n" * 250):  # the second leaves no room for the temporary file beside it
        said = error_of(run(*(part.format(name) for part in line.split()), code=3))
        assert f"{name} cannot be written: File name too long" in said


PLACES: dict[str, Callable[[Any], object]] = {
    "bundle": ve.read_bundle,
    "open_session": ve.open_session,
    "check": ve.check,
    "clips": find_clips,
    "clip": lambda name: read_clip(name, contract(4)),
    "processor": Preprocessor.from_pretrained,
    "model": lambda name: preview_export(name, None, ExportOptions(targets=("onnx",))),
    "scenic": lambda name: ve.convert_scenic(name, "x"),
    "triton": lambda name: ve.deploy_triton(SMALL, name),
    "cpp": lambda name: ve.deploy_cpp(SMALL, name),
    "target": lambda name: ve.export_model("demo", name, targets=("onnx",)),
}


@pytest.mark.parametrize("take", PLACES.values(), ids=PLACES)
def test_a_nul_in_a_name_is_refused_in_python(take: Callable[[Any], object]) -> None:
    """No command line can pass one on."""
    with pytest.raises(UsageError, match=r"'a\\x00b'.* holds a NUL character, which a file name cannot"):
        take("a\0b")
