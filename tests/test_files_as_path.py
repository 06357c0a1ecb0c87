"""What callers give in the place of a path, everywhere a path is taken."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from videos import contract

import vivit_export as ve
from vivit_export.errors import UsageError
from vivit_export.files import as_path
from vivit_export.runtime import Preprocessor, find_clips, read_clip, read_views, read_windows


def test_a_path_may_be_text_or_a_path() -> None:
    assert as_path("a/b.mp4", "path") == as_path(Path("a/b.mp4"), "path") == Path("a/b.mp4")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (
            io.BytesIO(b"x"),
            "path must be a path, got _io.BytesIO; give the name of the file, or write its content to one",
        ),
        (b"a.mp4", "path must be a path, got bytes; give a string or a Path"),
        (None, "path must be a path, got NoneType; give a string or a Path"),
        ({}, "path must be a path, got dict; give a string or a Path"),
    ],
)
def test_anything_else_is_refused_in_a_sentence(value: object, said: str) -> None:
    with pytest.raises(UsageError) as e:
        as_path(value, "path")
    assert str(e.value).startswith(said)


@pytest.mark.parametrize(
    ("name", "take"),
    [
        ("path", lambda value: read_clip(value, contract(4))),
        ("path", lambda value: read_views(value, contract(4))),
        ("path", lambda value: read_windows(value, contract(4), window=1)),
        ("folder_or_file", find_clips),
        ("folder", Preprocessor.from_pretrained),
        ("bundle", Preprocessor.from_bundle),
        ("bundle", ve.read_bundle),
        ("bundle", ve.open_session),
        ("bundle", ve.check),
    ],
)
def test_an_open_file_is_refused_wherever_a_path_is_taken(name: str, take: Callable[[Any], object]) -> None:
    with pytest.raises(UsageError, match=f"^{name} must be a path, got _io.BytesIO; "):
        take(io.BytesIO(b"x"))
