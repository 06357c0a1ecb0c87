"""Which rewrites a graph gets, and what may be left out."""

from __future__ import annotations

import pytest
from anatomies import vivit

from vivit_export.errors import UsageError
from vivit_export.precision import Precision
from vivit_export.rewrite import REWRITE_NAMES, Rewrite, choose_rewrites


def test_a_rewrite_is_equal_to_its_name_and_its_member() -> None:
    assert Rewrite("key-bias") is Rewrite.KEY_BIAS
    assert Rewrite.KEY_BIAS == f"{Rewrite.KEY_BIAS}" == str(Rewrite.KEY_BIAS) == "key-bias"


def test_the_precision_decides() -> None:
    chosen = {precision: set(Rewrite) - set(choose_rewrites(precision)) for precision in Precision}
    assert chosen == {
        Precision.FP32: {Rewrite.QUERY_BIAS, Rewrite.HEAD_SCALES},
        Precision.FP16: {Rewrite.HEAD_SCALES, Rewrite.MEAN_POOLING},
        Precision.BF16: {Rewrite.HEAD_SCALES, Rewrite.MEAN_POOLING},
        Precision.INT8: {Rewrite.MEAN_POOLING},
        Precision.FP8: {Rewrite.MEAN_POOLING},
    }
    assert choose_rewrites(Precision.INT8) == tuple(rewrite for rewrite in Rewrite if not rewrite.float32_only)


def test_what_may_be_left_out_is_named() -> None:
    assert choose_rewrites(Precision.FP16, REWRITE_NAMES) == ()
    assert choose_rewrites(Precision.INT8, REWRITE_NAMES) == (Rewrite.HEAD_SCALES,)
    for name in ("kay-bias", "head-scales"):
        with pytest.raises(
            UsageError, match=f"skip_rewrites='{name}' is not one of patch-embedding, .*, mean-pooling$"
        ):
            choose_rewrites(Precision.INT8, ("key-bias", name))


def test_places_are_counted_by_the_anatomy() -> None:
    assert [rewrite.places(vivit(12)) for rewrite in Rewrite] == [1, 0, 24, 12, 12, 12, 12, 12, 1, 0]
