"""Models that are in memory: written as a checkpoint first, so that they are exported exactly as a folder is."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeGuard, cast, runtime_checkable

from vivit_export.errors import CheckpointError, OutputError, UsageError, option
from vivit_export.leftovers import scratch


@runtime_checkable
class Saveable(Protocol):
    """A model or a processor of transformers."""

    def save_pretrained(self, save_directory: Any) -> Any:
        """Write it to a folder."""


@contextmanager
def as_checkpoint(
    model: str | Path | Saveable, processor: Saveable | None, note: Callable[[str], object] = str
) -> Iterator[str | Path]:
    """Give a model in memory a folder as long as the context lasts; pass on what names a checkpoint already.

    The weights are on the disk once more meanwhile. The folder is named after what the model was loaded from, or after
    its family.

    Args:
        model: hub id, checkpoint folder, ``demo``, or a model of transformers.
        processor: its image or video processor; needed for a model in memory.
        note: told if the model cannot be run, and so not be compared with what is written of it.

    Raises:
        CheckpointError: the model does not let itself be written, or computes something else than what is written.
        OutputError: the disk has no place for it.
        UsageError: a model without a processor, a processor without a model, or something else.
    """
    if not _is_saveable(model):
        if hasattr(model, "state_dict") and not isinstance(model, type):
            raise UsageError(
                f"{option('model')} is a {type(model).__name__}, which is not a model of transformers; give the model "
                "itself: of a DataParallel or DistributedDataParallel, its .module"
            )
        if processor is not None:
            raise UsageError(
                f"{option('processor')} is for a model in memory; a checkpoint has its own, so write yours into its "
                "folder with processor.save_pretrained(folder)"
            )
        yield cast("str | Path", model)  # or what its reader refuses
        return
    if processor is None:
        raise UsageError(
            f"{option('model')} is in memory, so {option('processor')} is needed too: it says how frames become pixel "
            "values"
        )
    if not _is_saveable(processor):
        raise UsageError(
            f"{option('processor')} must be an image or video processor of transformers, got {type(processor).__name__}"
        )
    with scratch() as room:
        folder = room / _name(model)
        _save(model, folder)
        _save(processor, folder)
        try:
            _compare(model, folder, note)
            yield folder
        except CheckpointError as e:  # the folder means nothing to anybody
            if str(folder) not in e.sentence:
                raise
            raise CheckpointError(e.sentence.replace(str(folder), "the model in memory")) from e


def _is_saveable(thing: object) -> TypeGuard[Saveable]:
    return isinstance(thing, Saveable) and not isinstance(thing, type)


def _save(thing: Saveable, folder: Path) -> None:
    try:
        thing.save_pretrained(folder)
    except OSError as e:
        raise OutputError(f"the model in memory cannot be written to {folder.parent.parent}: {e.strerror or e}") from e
    except Exception as e:  # whatever a model's own code raises
        logging.getLogger(__name__).debug("save_pretrained failed", exc_info=e)
        what, said = type(thing).__name__, (str(e).splitlines() or [type(e).__name__])[0]
        raise CheckpointError(f"{what}.save_pretrained failed: {said}; write it to a folder yourself") from e


def _compare(model: Saveable, folder: Path, note: Callable[[str], object]) -> None:
    from vivit_export.export.checkpoint.same_network import require_same

    reason = require_same(model, folder)
    if reason is not None:
        note(f"the model in memory was not compared with its saved checkpoint, because it cannot be run: {reason}")


def _name(model: Saveable) -> str:
    """Return what a model is called: the last part of what it was loaded from, or its family."""
    config = getattr(model, "config", None)
    loaded_from = Path(str(getattr(config, "name_or_path", "") or "")).name
    if re.fullmatch(r"\w[\w.-]{0,95}", loaded_from):
        return loaded_from
    return str(getattr(config, "model_type", "") or "model")
