"""Find the files of a checkpoint, in a folder or on the hub, without loading them."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from vivit_export import demo
from vivit_export.bundle.names import MANIFEST, RECIPE
from vivit_export.errors import CheckpointError, option
from vivit_export.families.scenic.flax_file import may_be_flax
from vivit_export.files import regular_text, sha256_of
from vivit_export.limits import MOST_JSON_BYTES
from vivit_export.packages import is_there, require_export_packages
from vivit_export.records import parse_foreign_json, shortly, shown

_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
_ADAPTER = "adapter_config.json"
_LONGEST_HUB_ID = 96  # characters; the hub has no longer ones
_HUB_JSON = ["config.json", "*processor_config.json", _ADAPTER, MANIFEST, RECIPE]
_HUB_FILES = [*_HUB_JSON, "*.safetensors", _WEIGHTS[1]]
# What training tools leave where the weights should be, and how to make weights of it.
_UNFINISHED = {
    "zero_to_fp32.py": "DeepSpeed's; run `python zero_to_fp32.py . .` there",
    "pytorch_model_fsdp_0": "FSDP's; run `accelerate merge-weights pytorch_model_fsdp_0 .` there",
    "tf_model.h5": "TensorFlow's; load it with from_tf=True in transformers 4 and save it with save_pretrained",
    "flax_model.msgpack": "Flax's; load it with from_flax=True in transformers 4 and save it with save_pretrained",
}


def locate(model: str, revision: str | None, allow_pickle: bool) -> tuple[Path, str | None]:
    """Find a checkpoint, downloading it from the hub if necessary.

    Args:
        model: ``demo``, a folder, or a hub id.
        revision: hub branch, tag or commit.
        allow_pickle: whether to download pickled weights too.

    Returns:
        The folder, and the hub commit or None.

    Raises:
        CheckpointError: it does not exist, or the hub cannot be reached.
    """
    folder = find_folder(model, revision)
    if folder is not None:
        return folder, None
    folder = _download(model, revision, [*_HUB_FILES, "pytorch_model*"] if allow_pickle else _HUB_FILES)
    return folder, folder.name


def download_json(model: str, revision: str | None) -> Path:
    """Download what a model on the hub says about itself, a few KB, and return the folder.

    Args:
        model: hub id.
        revision: hub branch, tag or commit.

    Raises:
        CheckpointError: it does not exist, or the hub cannot be reached.
    """
    return _download(model, revision, _HUB_JSON)


def find_folder(model: str, revision: str | None) -> Path | None:
    """Find a checkpoint on this machine; return None for a hub id.

    Raises:
        CheckpointError: it does not exist, or is a file; or a revision is given for a folder.
    """
    path = demo.checkpoint_path() if model == "demo" else _existing_path(model)
    if path is not None and path.is_dir():
        if revision is not None:
            what = "built in" if model == "demo" else "a local folder"
            raise CheckpointError(f"{model} is {what}; {option('revision', revision)} applies to hub ids only")
        return path
    if path is not None:
        way = "give the folder that holds config.json and model.safetensors"
        if may_be_flax(path):
            way = "if scenic wrote it, make a folder of it first: vivit convert scenic"
        raise CheckpointError(f"{model} is a file; {way}")
    if model.count("/") > 1 or model.startswith((".", "/", "~")) or model.endswith("/"):
        raise CheckpointError(f"{model} does not exist; give a checkpoint folder, a hub id (owner/name), or demo")
    if len(model) > _LONGEST_HUB_ID:
        raise CheckpointError(_no_hub_id(model))
    return None


def _existing_path(model: str) -> Path | None:
    try:
        path = Path(model).expanduser()
        return path if path.exists() else None
    except (OSError, RuntimeError):  # longer than a file name may be, or in the home of nobody
        return None


def _no_hub_id(model: str) -> str:
    return f"{model!r} is neither a folder nor a valid hub id (owner/name)"


def _download(model: str, revision: str | None, patterns: list[str]) -> Path:
    if not is_there("huggingface_hub"):
        require_export_packages()  # which bring it along: one command installs all that lacks
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=patterns))
    except HFValidationError as e:
        raise CheckpointError(_no_hub_id(model)) from e
    except (RepositoryNotFoundError, RevisionNotFoundError) as e:
        where = f" at revision {revision}" if revision else ""
        raise CheckpointError(
            f"the hub has no model {model}{where} (or it is private: set HF_TOKEN); check the spelling"
        ) from e
    except Exception as e:  # the hub client raises many kinds when offline; all mean the same to the user
        logging.getLogger(__name__).debug("hub download failed", exc_info=e)
        raise CheckpointError(
            f"cannot reach the hub for {model} and it is not in the local cache; give a local checkpoint folder "
            "instead, or use the built-in model: vivit-export demo"
        ) from e


def weight_files(folder: Path, allow_pickle: bool) -> list[Path]:
    """Return the file, or the shards, with a checkpoint's weights.

    Raises:
        CheckpointError: there are no weights, only pickled ones, or a shard is missing.
    """
    for names in (_WEIGHTS, _PICKLES) if allow_pickle else (_WEIGHTS,):
        single, index = folder / names[0], folder / names[1]
        if single.exists():
            return [single]
        if index.exists():
            return _shards(folder, index)
    if any((folder / name).exists() for name in _PICKLES):
        raise CheckpointError(
            f"{folder} holds its weights as a pickle ({_PICKLES[0]}), which can carry code; convert it to "
            f"safetensors, or pass {option('allow_pickle')} if you trust it"
        )
    for name, whose in _UNFINISHED.items():
        if (folder / name).exists():
            raise CheckpointError(f"{folder} has no {_WEIGHTS[0]}, but {name}, which is {whose}")
    others = sorted(path.name for path in folder.glob("*.safetensors"))
    found = f"; if {others[0]} holds them, give it that name" if others else ""
    raise CheckpointError(f"{folder} has no weights; {_WEIGHTS[0]} (or a sharded {_WEIGHTS[1]}) is needed{found}")


def hash_weights(model: str, revision: str | None, *, pickled: bool) -> dict[str, str]:
    """Return the SHA-256 of each weight file of a checkpoint by name, pickles too, without loading any.

    Args:
        model: see `locate`.
        revision: see `locate`.
        pickled: whether to download pickled weights too.

    Raises:
        CheckpointError: see `locate` and `weight_files`.
    """
    folder, _ = locate(model, revision, pickled)
    return {path.name: sha256_of(path) for path in weight_files(folder, allow_pickle=True)}


def refuse_adapter(folder: Path) -> None:
    """Refuse a folder that holds an adapter: without it, another network would be exported.

    Raises:
        CheckpointError: it does.
    """
    if (folder / _ADAPTER).exists():
        merged = f"; if it is merged into these weights already, remove {_ADAPTER}" if has_config(folder) else ""
        raise CheckpointError(f"{folder} holds an adapter ({_ADAPTER}), not a model; {merge_advice(folder)}{merged}")


def merge_advice(folder: Path) -> str:
    """Return how to merge an adapter into its model, as part of a sentence."""
    try:
        base = parse_foreign_json((folder / _ADAPTER).read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError):
        base = None
    named = f" ({base})" if base else ""
    return (
        f"merge it first: load its base model{named} as for the training, then "
        f'peft.PeftModel.from_pretrained(base, {str(folder)!r}).merge_and_unload().save_pretrained("merged"), and '
        "export merged, with a preprocessor_config.json in it"
    )


def has_config(folder: Path) -> bool:
    """Return whether a folder may be a checkpoint."""
    return (folder / "config.json").is_file()


def no_config(folder: Path) -> str:
    """Return a sentence that says what to give instead of a folder without a ``config.json``."""
    steps = {int(path.name.rpartition("-")[2]): path for path in folder.glob("checkpoint-*") if _is_step(path)}
    if steps:
        return (
            f"{folder} has no config.json, but {len(steps)} checkpoints in it; give the one to export, such as the "
            f"last: {steps[max(steps)]}"
        )
    snapshots = sorted(path for path in folder.glob("snapshots/*") if has_config(path))
    if snapshots:  # models--OWNER--NAME of the hub's cache
        return f"{folder} has no config.json; give the snapshot to export: {snapshots[-1]}"
    if (folder / MANIFEST).is_file():
        return (
            f"{folder} is a bundle, not a checkpoint; run it as it is, or repeat its export with: "
            f"vivit-export --config {folder / RECIPE}"
        )
    return f"{folder} has no config.json; it is not a Hugging Face checkpoint folder"


def _is_step(path: Path) -> bool:
    return path.name.removeprefix("checkpoint-").isdecimal() and has_config(path)


def _shards(folder: Path, index: Path) -> list[Path]:
    try:
        names = sorted(set(parse_foreign_json(regular_text(index, MOST_JSON_BYTES))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        raise CheckpointError(f"{index} is not a valid shard index: {e}") from e
    if not names or not all(isinstance(name, str) for name in names):
        raise CheckpointError(f"{index} is not a valid shard index: its weight_map must name at least one file")
    for name in names:
        if Path(name).name != name:
            raise CheckpointError(f"{index} names the shard {shown(name)} outside its folder")
        if index.name == _WEIGHTS[1] and not name.endswith(".safetensors"):
            raise CheckpointError(f"{index} names the shard {shown(name)}, which is not a safetensors file")
        if not os.path.exists(folder / name):  # also false for a name that no file can have
            raise CheckpointError(f"{folder} lacks the weight shard {shortly(name)} that {index.name} lists")
    return [folder / name for name in names]
