"""A page with every field of the files in a bundle, made from their JSON schemas."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import write_schemas
from markdown_cells import code, table, with_code


def page() -> str:
    """Return the page."""
    schemas = write_schemas.schemas()
    parts = [
        "# Files of a bundle, field by field\n",
        "`tools/write_reference_pages.py` writes this page.\n",
        "The schemas (JSON Schema, draft 2020-12) are in the package, in `vivit_export/bundle/schemas/`: "
        + ", ".join(f"[{name}](../vivit_export/bundle/schemas/{name})" for name in schemas)
        + ". A reader refuses a field that is not listed. [The bundle](bundle.md) tells which file is for what.\n",
    ]
    records: dict[str, Any] = {}
    for name, schema in schemas.items():
        if name != "report.schema.json":  # it has the fields of bundle.json
            parts += [f"## {schema['title']}\n", _record(schema)]
        records.update(schema.get("$defs", {}))
    parts.append(
        "## report.json\n\nThe fields of [bundle.json](#bundlejson) except `files`; `format` is "
        f"{code(schemas['report.schema.json']['properties']['format']['const'])}.\n"
    )
    parts.append("## Records\n")
    for name in sorted(records):
        parts += [f"### {name}\n", _record(records[name])]
    return "\n".join(parts)


def _record(schema: Mapping[str, Any]) -> str:
    required = set(schema["required"])
    rows = [
        (
            code(name) + ("" if name in required else " (optional)"),
            type_of(field),
            with_code(field.get("description", "the version of the format")),
        )
        for name, field in schema["properties"].items()
    ]
    return f"{with_code(schema['description'])}\n\n{table(['field', 'type', 'what it is'], rows)}"


def type_of(field: Mapping[str, Any]) -> str:
    """Return the type of a field, with links to records."""
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "const" in field:
        return code(field["const"])
    if "enum" in field:
        return ", ".join(code(str(value)) for value in field["enum"])
    if "anyOf" in field:
        return " or ".join(dict.fromkeys(type_of(one) for one in field["anyOf"]))
    if "prefixItems" in field:
        return f"list of {len(field['prefixItems'])}: {', '.join(type_of(one) for one in field['prefixItems'])}"
    if "items" in field:
        return f"list of {type_of(field['items'])}"
    if "additionalProperties" in field:
        return f"object of {type_of(field['additionalProperties'])}"
    return str(field.get("type", "any value"))
