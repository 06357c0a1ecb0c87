"""Compare the versions that we pin with known vulnerabilities, without a network.

    git clone --depth 1 https://github.com/pypa/advisory-database advisories
    .venv/bin/python tools/check_advisories.py advisories/vulns [constraints-lowest.txt]

Reads OSV records (https://ossf.github.io/osv-schema/), YAML or JSON, from a folder that you have. It says how old the
newest record is: what became known later is not in it. With a network, ``pip-audit`` asks the index. Exits with 1 if a
version is affected.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

ROOT = Path(__file__).parents[1]

Record = Mapping[str, Any]


def read_records(folder: Path) -> Iterator[Record]:
    """Yield the records below a folder that were not withdrawn."""
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".json", ".yaml", ".yml"):
            text = path.read_text(encoding="utf-8")
            record = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
            if "withdrawn" not in record:
                yield record


def affects(record: Record, name: str, version: str) -> bool:
    """Whether a version of a package of PyPI is affected; see "Evaluation" in the OSV schema."""
    return any(
        canonicalize_name(entry["package"]["name"]) == canonicalize_name(name)
        and entry["package"]["ecosystem"] == "PyPI"
        and (version in entry.get("versions", ()) or any(_in_range(r, version) for r in entry.get("ranges", ())))
        for entry in record.get("affected", ())
    )


def _in_range(span: Mapping[str, Any], version: str) -> bool:
    if span["type"] != "ECOSYSTEM":  # commits say nothing of versions
        return False
    affected = False
    for event in sorted(span["events"], key=lambda e: _version(next(iter(e.values())))):
        ((kind, at),) = event.items()
        if kind == "introduced" and Version(version) >= _version(at):
            affected = True
        elif (kind == "fixed" and Version(version) >= _version(at)) or (
            kind == "last_affected" and Version(version) > _version(at)
        ):
            affected = False
    return affected


def _version(text: str) -> Version:
    try:
        return Version(text)
    except InvalidVersion:  # of the time before PEP 440: older than all others
        return Version("0.dev0")


def pinned(path: Path) -> list[tuple[str, str]]:
    """Return the names and versions of a file of constraints."""
    return re.findall(r"^([\w.-]+)==([^\s;]+)", path.read_text(encoding="utf-8"), re.MULTILINE)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what is affected, and return the exit code."""
    folder, *files = map(Path, sys.argv[1:] if arguments is None else arguments)
    records = list(read_records(folder))
    if not records:
        print(f"{folder} has no OSV record (YAML or JSON)", file=sys.stderr)
        return 2
    newest = max(str(record["modified"]) for record in records)
    found = 0
    for path in files or [ROOT / "constraints.txt"]:
        for name, version in pinned(path):
            for record in (record for record in records if affects(record, name, version)):
                found += 1
                ids = ", ".join((record["id"], *record.get("aliases", ())))
                print(f"{path.name}: {name} {version} is affected by {ids}")
    print(f"{found} found in {len(records)} records, of which the newest is of {newest[:10]}")
    return int(found > 0)


if __name__ == "__main__":
    sys.exit(main())
