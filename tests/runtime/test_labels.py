"""Names of the logits from a file, and files that are not for this model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vivit_export.errors import InputError
from vivit_export.runtime.labels import read_labels

LABELS = [f"name {i}" for i in range(8)]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("labels.txt", "\n".join(LABELS) + "\n\n"),
        ("labels.json", json.dumps(LABELS)),
        ("labels.json", json.dumps({str(i): label for i, label in enumerate(LABELS)})),
        ("config.json", json.dumps({"model_type": "vivit", "id2label": {str(i): v for i, v in enumerate(LABELS)}})),
    ],
)
def test_labels_come_from_a_file(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    assert list(read_labels(tmp_path / name, 8)) == LABELS


@pytest.mark.parametrize("name", ["labels.txt", "labels.json"])
def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path, name: str) -> None:
    text = "\r\n".join(LABELS) if name.endswith("txt") else json.dumps(LABELS)
    (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert list(read_labels(tmp_path / name, 8)) == LABELS


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("few.txt", "one\ntwo\n", "names 2 labels, but the model has 8"),
        ("one.txt", "one\n", "names 1 label, but the model has 8"),
        ("bad.json", "{", "cannot be read"),
        ("numbers.json", "[1, 2]", "neither a list of names nor an object"),
        ("gap.json", '{"0": "a", "2": "b"}', "index 1 is missing"),
        ("words.json", '{"a": "b"}', "cannot be read"),
        ("none.txt", None, "No such file"),
    ],
)
def test_labels_of_another_model_are_refused(tmp_path: Path, name: str, content: str | None, said: str) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=said):
        read_labels(tmp_path / name, 8)
