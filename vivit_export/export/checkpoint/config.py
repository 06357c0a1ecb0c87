"""Read ``config.json`` of a checkpoint, refuse what cannot be exported, and prepare the rest for loading. No torch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from vivit_export.contract import Clip, Task
from vivit_export.errors import CheckpointError, option
from vivit_export.export.checkpoint.files import no_config, refuse_adapter
from vivit_export.families import Family, find_family
from vivit_export.files import regular_text
from vivit_export.limits import MOST_JSON_BYTES, MOST_UNSTORED, MOST_WIDTH
from vivit_export.records import JsonObject, parse_foreign_json, shown

# How the network is run and stored, not what it computes: any other value changes the form of its outputs, or rounds
# float32 weights while they are loaded. `torch_dtype` is the name of `dtype` before transformers 4.56.
_AS_WE_RUN_IT = {
    "dtype": "float32",
    "torch_dtype": "float32",
    "output_attentions": False,
    "output_hidden_states": False,
    "return_dict": True,
    "torchscript": False,
}


def read_config(folder: Path) -> JsonObject:
    """Read the fields, with the labels as a list would number them.

    Args:
        folder: a checkpoint in Hugging Face form.

    Returns:
        The fields as they are in the file, but ``id2label`` (if there is one) maps 0 to n - 1, in order.

    Raises:
        CheckpointError: no file, not JSON, of no known family, quantized weights, or a field that no network fits.
    """
    path = folder / "config.json"
    refuse_adapter(folder)
    try:
        config = parse_foreign_json(regular_text(path, MOST_JSON_BYTES, "utf-8-sig"))
    except FileNotFoundError:
        raise CheckpointError(no_config(folder)) from None
    except (OSError, ValueError) as e:
        raise CheckpointError(f"{path} cannot be read as JSON: {e}") from e
    family = find_family(config.get("model_type") if isinstance(config, dict) else None, str(folder))
    if config.get("quantization_config"):
        found = config["quantization_config"]
        method = found.get("quant_method") if isinstance(found, dict) else None
        raise CheckpointError(
            f"{path} has a quantization_config ({method or 'of no method'}), so the weights are codes, not floats; "
            f"export the checkpoint that was quantized, with {option('precision', 'int8')} if you like, or remove "
            "the field if the weights are floats again"
        )
    sizes = {name: family.size(config, name, str(path)) for name in family.sizes}
    hidden, heads = sizes["hidden_size"], sizes["num_attention_heads"]
    if hidden % heads:
        raise CheckpointError(f"{path}: hidden_size={hidden} does not divide by num_attention_heads={heads}")
    eps = config.get("layer_norm_eps", 0.0)
    if type(eps) not in (int, float) or not 0 <= eps < float("inf"):  # NaN is neither
        raise CheckpointError(f"{path}: layer_norm_eps must be a finite number, 0 or more, got {eps!r}")
    if config.get("num_channels", 3) != 3:
        raise CheckpointError(f"{path}: num_channels={config['num_channels']}; only RGB models (3) are supported")
    task = config.get("problem_type")
    if task is not None and task not in get_args(Task):
        raise CheckpointError(f"{path}: problem_type {shown(task)} is not one of {', '.join(get_args(Task))}")
    if config.get("id2label") is not None:
        config["id2label"] = _labels(config["id2label"], path)
        if len(config["id2label"]) > MOST_WIDTH:
            raise CheckpointError(
                f"{path}: id2label has {len(config['id2label'])} labels; at most {MOST_WIDTH} are possible"
            )
    family.require(config, str(path))
    _require_architectures(config.get("architectures"), family, path)
    return dict(config)


def _require_architectures(found: object, family: Family, path: Path) -> None:
    if found is not None and not isinstance(found, list):
        raise CheckpointError(f"{path}: architectures must be a list of names, got {shown(found)}")
    for name in found or []:
        if isinstance(name, str) and name.endswith("ForPreTraining"):
            raise CheckpointError(
                f"{path}: architectures has {shown(name)}, which makes pixels, not labels; export a checkpoint that "
                f'was fine-tuned, or set architectures to ["{family.encoder}"] for the encoder alone'
            )


def require_stored(family: Family, config: JsonObject, clip: Clip, counts: Sequence[int], folder: Path) -> None:
    """Refuse a config that implies far more numbers than are stored, before memory is spent on them.

    Args:
        family: of the config.
        config: from `read_config`.
        clip: geometry of the network's input.
        counts: how many numbers each stored weight has.
        folder: for the message.

    Raises:
        CheckpointError: it does.
    """
    blocks = family.anatomy(config, clip).num_blocks
    if blocks > len(counts):
        raise CheckpointError(
            f"{folder}: config.json has num_hidden_layers={blocks}, but there are only {len(counts)} weights; the "
            "weights and the config belong to different models"
        )
    implied = family.implied_numbers(config, clip)
    if implied > 2 * sum(counts) + MOST_UNSTORED:
        raise CheckpointError(
            f"{folder}: config.json implies {implied} numbers, but only {sum(counts)} are stored; the weights and the "
            "config belong to different models"
        )


def overridden_note(config: JsonObject) -> str | None:
    """Return a sentence that names the settings that `as_loaded` replaces, or None."""
    changed = [
        f"{name}={config[name]!r}" for name, ours in _AS_WE_RUN_IT.items() if config.get(name) not in (None, ours)
    ]
    return f"not as config.json says: {', '.join(changed)}; weights are float32 and outputs plain" if changed else None


def as_loaded(config: JsonObject) -> JsonObject:
    """Return the fields to build the network with: float32, and its outputs in the form that we read."""
    return {**config, **_AS_WE_RUN_IT}


def _labels(found: object, path: Path) -> dict[int, str]:
    """Return the name of each logit by its number; transformers takes any keys, and loses those beyond the logits."""
    if isinstance(found, list):
        return {i: str(name) for i, name in enumerate(found)}
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: id2label must map the number of each logit to its name, got {shown(found)}")
    wrong = next((key for key in found if not re.fullmatch(r"-?[0-9]{1,9}", key)), None)
    if wrong is not None:
        raise CheckpointError(
            f"{path}: id2label must map the number of each logit to its name, but has the key {shown(wrong)}; "
            "is it label2id?"
        )
    named = {int(key): str(name) for key, name in found.items()}
    if sorted(named) != list(range(len(found))):
        odd = next((i for i in sorted(named) if not 0 <= i < len(found)), None)
        has = "has a number twice" if odd is None else f"has number {odd}"
        raise CheckpointError(
            f"{path}: id2label names {len(found)} labels, whose numbers must be 0 to {len(found) - 1}, but it {has}; "
            "number the labels as the logits are"
        )
    return dict(sorted(named.items()))
