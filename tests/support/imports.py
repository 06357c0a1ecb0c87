"""What a piece of code imports, seen in a process of its own."""

from __future__ import annotations

import subprocess
import sys


def imported_by(code: str, *modules: str) -> list[str]:
    """Return which of these modules are loaded after the code has run."""
    code = f"import sys; {code}\nprint(*(name for name in {modules!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split()
