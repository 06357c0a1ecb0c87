"""Refuse what is not a checkpoint to export before torch is loaded, which takes seconds."""

from __future__ import annotations

from vivit_export.errors import UsageError, option
from vivit_export.export.checkpoint.config import read_config
from vivit_export.export.checkpoint.files import download_json, find_folder, weight_files
from vivit_export.families import find_family
from vivit_export.files import as_path
from vivit_export.hub import is_hub_address, parse_hub_address
from vivit_export.runtime.clips.pixels.processor_config import read_preprocess


def name_of(model: object, name: str = "model") -> str:
    """Return the name of a checkpoint as text.

    Args:
        model: a hub id, a folder, or ``demo``.
        name: the caller's name for it.

    Raises:
        UsageError: it is something else, such as a network in memory, or holds a NUL.
    """
    if isinstance(model, str):
        if is_hub_address(model):
            return _repo(model)
        as_path(model, name)
        return model  # not the path, which would drop a final slash
    if callable(getattr(model, "save_pretrained", None)):
        raise UsageError(
            f"{option(name)} must be a folder or a hub id, got a {type(model).__name__} in memory; write it with "
            "model.save_pretrained(folder), its processor too, and give the folder"
        )
    return str(as_path(model, name))


def _repo(model: str) -> str:
    address = parse_hub_address(model)
    if address.revision is not None:
        raise UsageError(
            f"{model} names a revision, which has an option of its own: {address.repo} with "
            f"{option('revision', address.revision)}"
        )
    return address.repo


def preview_checkpoint(model: str, *, revision: str | None = None, allow_pickle: bool = False) -> None:
    """Read the JSON of a checkpoint, and look for its weights; those of a model on the hub are left for later.

    Args:
        model: see `vivit_export.export.checkpoint.load.load_checkpoint`, also for the others.
        revision: see there.
        allow_pickle: see there.

    Raises:
        CheckpointError: it does not exist, is of no family that we know, or lacks weights or a processor.
    """
    here = find_folder(model, revision)
    folder = download_json(model, revision) if here is None else here
    config = read_config(folder)
    family = find_family(config["model_type"], str(folder))
    clip = family.clip(config, str(folder / "config.json"))
    read_preprocess(folder, (clip.height, clip.width), family.processor)
    if here is not None:
        weight_files(folder, allow_pickle)
