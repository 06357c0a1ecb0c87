"""What others wrote is shown by a terminal, not obeyed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivit_export.printing import code_span, lines, one_line


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("abseiling", "abseiling"),
        ("zumba, ñ 体操 \u3000", "zumba, ñ 体操 \u3000"),
        ("\x1b[2J\x1b]0;title\x07", r"\x1b[2J\x1b]0;title\x07"),
        ("a\nb\rc\td\x00", r"a\nb\rc\td\x00"),
        ("\x9b31m", r"\x9b31m"),
        ("safe\u202egpj.exe", r"safe\u202egpj.exe"),
        ("\u2028", r"\u2028"),
        ("caf\udce9.mp4", r"caf\udce9.mp4"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("x" * 5000, "x" * 4000 + "…"),
    ],
)
def test_what_a_terminal_would_obey_is_spelled_out(text: str, shown: str) -> None:
    assert one_line(text) == shown


def test_lines_stay_lines() -> None:
    assert lines("a\n\x1bb\n") == "a\n\\x1bb\n"


@given(st.text(st.characters()))  # halves of pairs too, as file names that are not UTF-8 have them
def test_no_text_moves_the_cursor(text: str) -> None:
    one_line(text).encode("utf-8")  # else printing would fail
    assert not set(map(ord, one_line(text))) & {*range(32), *range(127, 160)}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "`plain`"),
        ("<script>[x](http://a.example)", "`<script>[x](http://a.example)`"),
        ("a`b", "`` a`b ``"),
        ("`````", "`````` ````` ``````"),
        ("a\n\n# b", r"`a\n\n# b`"),
        ("\x1b[2J", r"`\x1b[2J`"),
        (" ", "–"),
    ],
)
def test_text_of_others_stays_in_its_code_span(text: str, shown: str) -> None:
    assert code_span(text) == shown
