"""One file, written completely or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vivit_export.files import write_json


def test_json_is_sorted_readable_and_strict(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"b": 1, "a": ["Δ", None]})
    assert (tmp_path / "x.json").read_bytes() == '{\n  "a": [\n    "Δ",\n    null\n  ],\n  "b": 1\n}\n'.encode()
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", float("nan"))
    assert os.listdir(tmp_path) == ["x.json"]
    assert (tmp_path / "x.json").read_bytes().startswith(b"{")
