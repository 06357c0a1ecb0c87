"""Print how many attacks the tests try, by kind: ``python tools/count_attacks.py``."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

ATTACKS = Path(__file__).parents[1] / "tests/attacks"


def count_attacks() -> dict[str, int]:
    """Return how many cases pytest collects in each file, by the file's first line; nothing is run."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "--no-header", str(ATTACKS)]
    done = subprocess.run(command, cwd=ATTACKS.parents[1], capture_output=True, text=True, check=True)
    files = Counter(line.partition("::")[0] for line in done.stdout.splitlines() if "::" in line)
    return {_subject(ATTACKS.parents[1] / name): count for name, count in sorted(files.items())}


def _subject(path: Path) -> str:
    return path.read_text(encoding="utf-8").splitlines()[0].strip('"').rstrip(".")


def main() -> None:
    """Print a table."""
    counts = count_attacks()
    width = max(map(len, counts))
    for subject, count in [*counts.items(), ("all", sum(counts.values()))]:
        sys.stdout.write(f"{subject:<{width}}  {count:>5}\n")


if __name__ == "__main__":
    main()
