"""Read manifests of earlier versions: convert them to today's form."""

from __future__ import annotations

from vivit_export.errors import InputError
from vivit_export.families import find_family
from vivit_export.records import JsonObject, to_json


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


def with_anatomy(data: JsonObject) -> JsonObject:
    """Return a manifest of version 2 with the anatomy of its network, which earlier commits did not write.

    Raises:
        InputError: its config is of no family that we know, or does not fit.
    """
    model = data["model"]
    if not isinstance(model, dict) or "anatomy" in model or not isinstance(model.get("config"), dict):
        return data  # whole, or damaged in a way that its reader names
    config, origin = model["config"], "model.config"
    try:
        family = find_family(config.get("model_type", "vivit"), "it")
        family.require(config, origin)
        anatomy = family.anatomy(config, family.clip(config, origin))
    except InputError as e:
        raise InputError(f"bundle.{origin}: {str(e).removeprefix(f'{origin}: ').removeprefix('config.json: ')}") from e
    return {**data, "model": {**model, "anatomy": to_json(anatomy)}}
