"""The keyword arguments of an export are the fields of its options, and may be given as more."""

from __future__ import annotations

import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from vivit_export.export.fields import ExportFields
from vivit_export.export.options import ExportOptions
from vivit_export.precision import Precision, PrecisionName

WIDER: dict[str, Any] = {
    "precision": Precision | PrecisionName | typing.Literal["auto"],
    "targets": str | Sequence[str],
    "sms": int | Sequence[int],
    "batches": Sequence[int],
    "outputs": str | Sequence[str],
    "skip_rewrites": str | Sequence[str],
    "clips": str | Path | None,
    "timing_cache": str | Path | None,
}


def test_the_keyword_arguments_are_the_fields() -> None:
    assert typing.get_type_hints(ExportFields) == typing.get_type_hints(ExportOptions) | WIDER
    assert set(get_args(PrecisionName)) == set(Precision)
