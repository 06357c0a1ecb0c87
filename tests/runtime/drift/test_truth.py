"""Reading the known labels of clips: every way to write them that is meant well, and a sentence for the rest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from small_bundle import CONTRACT

from vivit_export.contract import Tensor
from vivit_export.errors import InputError, UsageError
from vivit_export.runtime.drift.truth import Truth, read_truth

NAMES = ("walk/a.mp4", "run/a.mp4", "run/b c.mp4")
THREE = replace(
    CONTRACT,
    labels=("walk", "run", "sit, down"),
    io=replace(CONTRACT.io, outputs=(Tensor("logits", "float32", ("batch", 3)),)),
)
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str | bytes, name: str = "labels.csv") -> Path:
        (tmp_path / name).write_bytes(text.encode() if isinstance(text, str) else text)
        return tmp_path / name

    return write


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("labels.csv", 'walk/a.mp4,walk\nrun/a.mp4,run\nrun/b c.mp4,"sit, down"\n'),
        ("labels.csv", "path,label\nwalk/a.mp4,0\nrun/a.mp4,1\nb c.mp4,2\n"),
        (
            "labels.csv",
            "# mine\n\n/x/walk/a.mp4;walk\r\n/x/run/a.mp4;run\r\n/x/run/b c.mp4;sit, down\r\n",
        ),
        ("labels.tsv", "walk/a\t walk\nrun/a\trun\nb c\t2\textra\n"),
        ("labels.txt", "walk\\a.mp4 walk\nrun\\a.mp4 run\nrun\\b c.mp4 2\n"),
        ("labels.csv", b"\xef\xbb\xbfvideo,label\nwalk/a.mp4,walk\nrun/a.mp4,run\nb c.mp4,2\n"),
        ("labels.csv", "run/b c.mp4,2\nrun/a.mp4,run\nwalk/a.mp4,walk\n"),
    ],
)
def test_ways_to_write_labels(write: Write, name: str, text: str | bytes) -> None:
    assert read_truth(write(text, name), THREE, NAMES) == Truth(name, (0, 1, 2))


def test_lines_about_clips_that_are_not_checked_are_ignored(write: Write) -> None:
    path = write("walk/a.mp4,walk\nrun/a.mp4,run\nb c.mp4,2\n")
    assert read_truth(path, THREE, NAMES[1:2], NAMES).classes == (1,)


def test_a_label_that_is_a_number_is_first_of_all_a_name(write: Write) -> None:
    contract = replace(THREE, labels=("2", "1", "0"))
    assert read_truth(write("a.mp4,2\n"), contract, ("a.mp4",)).classes == (0,)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "labels.csv labels no clip; write a clip and its label in each line, such as: a.mp4,walk"),
        ("path,label\n", "labels.csv labels no clip"),
        ("x.mp4,walk\n", "line 1 of .*labels.csv labels 'x.mp4', which is not a clip of this check; correct the name"),
        ("a.mp4,walk\n", "line 1 of .* labels 'a.mp4', which may be walk/a.mp4 or run/a.mp4; write its path"),
        ("b c.mp4,jump\n", "label 'jump', which the model lacks; write the name of a label such as walk"),
        ("b c.mp4,3\n", "label '3', which the model lacks; .* or an index from 0 to 2"),
        ("b c.mp4,-1\n", "label '-1', which the model lacks"),
        ("b c.mp4,99999999999999999999\n", "which the model lacks"),
        ("b c.mp4,walk\nrun/b c.mp4,walk\n", "line 2 of .* which line 1 has labelled already; remove one of the two"),
        ("b c.mp4,walk\n", "has no label for 2 of 3 clips: walk/a.mp4, run/a.mp4; add them, or leave these clips out"),
        ("b c.mp4,\n", "line 1 of .* is not a clip and its label; write both"),
        ("b c.mp4\n", "line 1 of .* is not a clip and its label"),
        (",walk\n", "line 1 of .* is not a clip and its label"),
        ("a.mp4,walk\n".encode("utf-16"), "labels.csv is not text in UTF-8; save it in that encoding"),
        (b"caf\xe9.mp4,walk\n", "is not text in UTF-8"),
        ('"b c.mp4,walk\n' + "x" * 200_000, "cannot be read as labels"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_in_a_sentence(write: Write, text: str | bytes, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_truth(write(text), THREE, NAMES)


def test_a_label_that_the_model_has_twice_needs_its_index(write: Write) -> None:
    contract = replace(THREE, labels=("walk", "walk", "run"))
    with pytest.raises(InputError, match="has the label 'walk', which the model has twice; write its index"):
        read_truth(write("a.mp4,walk\n"), contract, ("a.mp4",))
    assert read_truth(write("a.mp4,1\n"), contract, ("a.mp4",)).classes == (1,)


def test_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"missing\.csv does not exist; give a file with a clip and its label"):
        read_truth(tmp_path / "missing.csv", THREE, NAMES)
    with pytest.raises(InputError, match="cannot be read: it is a folder, not a file"):
        read_truth(tmp_path, THREE, NAMES)


def test_models_without_a_best_class_are_refused(write: Write) -> None:
    path = write("a.mp4,walk\n")
    with pytest.raises(
        UsageError, match=r"labels measures how often the best class is right, .* of this model is regression"
    ):
        read_truth(path, replace(THREE, task="regression"), NAMES)
    headless = replace(THREE, io=replace(THREE.io, outputs=(Tensor("embedding", "float32", ("batch", 4)),)), labels=())
    with pytest.raises(UsageError, match="this model has only an embedding; leave it out"):
        read_truth(path, headless, NAMES)
