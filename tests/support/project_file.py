"""pyproject.toml as a dictionary; Python 3.10 has no reader of its own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    from tomllib import loads
else:
    from tomli import loads

ROOT = Path(__file__).parents[2]


def project() -> dict[str, Any]:
    """Return the section ``project``."""
    return dict(loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"])
