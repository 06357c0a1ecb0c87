"""Write the JSON schemas of the files in a bundle, which are published with the package, from our own records.

    python tools/write_schemas.py

A test runs it and compares.
"""

from __future__ import annotations

import json
from pathlib import Path

from vivit_export.bundle import FORMAT
from vivit_export.bundle.engines import Sidecar
from vivit_export.bundle.manifest import Content, Manifest
from vivit_export.calibration import ranges
from vivit_export.records import JsonObject, json_schema
from vivit_export.report import html

FOLDER = Path(__file__).parents[1] / "vivit_export/bundle/schemas"


def schemas() -> dict[str, JsonObject]:
    """Each schema by the name of its file."""
    return {
        "bundle.schema.json": json_schema(Manifest, "bundle.json", FORMAT),
        "engine.schema.json": json_schema(Sidecar, "engines/NAME.json"),
        "report.schema.json": json_schema(Content, "report.json", html.FORMAT),
        "ranges.schema.json": json_schema(ranges.Ranges, "ranges.json", ranges.FORMAT),
    }


def text(schema: JsonObject) -> str:
    """The bytes of a file."""
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, schema in schemas().items():
        (FOLDER / name).write_text(text(schema), encoding="utf-8")
        print(f"wrote {FOLDER / name}")
