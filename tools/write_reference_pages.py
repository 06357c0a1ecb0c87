"""Write the pages of docs/ that are made from code: commands, errors, and the fields of a bundle's files.

    PYTHONPATH=tools:tools/docs_site python tools/write_reference_pages.py

A test compares.
"""

from __future__ import annotations

from pathlib import Path

import command_pages
import error_page
import schema_page

DOCS = Path(__file__).parents[1] / "docs"


def pages() -> dict[str, str]:
    """Each page by its path in ``docs/``."""
    return {**command_pages.pages(), "errors.md": error_page.page(), "schemas.md": schema_page.page()}


def main() -> None:
    """Write them."""
    for name, text in pages().items():
        path = DOCS / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
