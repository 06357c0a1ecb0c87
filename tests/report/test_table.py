"""Tables of a page."""

from __future__ import annotations

from vivit_export.report.table import table_of


def test_a_column_that_is_empty_in_all_rows_is_left_out() -> None:
    found = table_of("Runs", ("run", "a", "b", "note"), [("x", "", "1", "–"), ("y", "", "", "")])
    assert found is not None
    assert found.columns == ("run", "b") and found.rows == (("x", "1"), ("y", ""))


def test_no_table_without_content() -> None:
    assert table_of("Runs", ("run",), []) is None and table_of("Runs", ("run",), [("",), ("–",)]) is None
