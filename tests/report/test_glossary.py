"""The page explains terms in the words of the documentation."""

from __future__ import annotations

import re
from pathlib import Path

from vivit_export.report.glossary import TERMS

GLOSSARY = Path(__file__).parents[2] / "docs/glossary.md"


def test_the_page_says_what_the_documentation_says() -> None:
    rows = re.findall(r"^\| \*\*(.+?)\*\* \| (.+?) \|$", GLOSSARY.read_text(encoding="utf-8"), re.MULTILINE)
    plain = {term: re.sub(r" *See \[.*?\]\(.*?\)\.", "", meaning).replace("`", "") for term, meaning in rows}
    assert {term: plain.get(term) for term in TERMS} == TERMS
