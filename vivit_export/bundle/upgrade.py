"""Read the previous format: convert ``vivit-bundle/1`` to today's form."""

from __future__ import annotations

from vivit_export.records import JsonObject


def from_version_1(data: JsonObject) -> JsonObject:
    """Return a manifest of version 1, as parsed, in the form of version 2.

    Differences: version 1 had the number of encoder blocks only in the config, another spelling of ``quantization``,
    and empty ``checks`` for bundles that were not checked.

    Raises:
        KeyError, TypeError, ValueError: it is not a manifest of version 1.
    """
    precision = dict(data["precision"])
    if "quantisation" in precision:
        precision["quantization"] = precision.pop("quantisation")
    model = dict(data["model"])
    return {
        **{name: section for name, section in data.items() if name != "format"},
        "producer": data.get("producer", {"vivit_export": "0.1.0"}),
        "model": {**model, "num_blocks": int(model["config"]["num_hidden_layers"])},
        "precision": precision,
        "checks": data["checks"] or None,
    }
