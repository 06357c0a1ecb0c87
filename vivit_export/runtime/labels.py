"""Read the names of the logits from a file, for checkpoints that only have ``LABEL_0`` and so on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vivit_export.errors import InputError, counted
from vivit_export.records import parse_foreign_json


def read_labels(path: Path, num_labels: int) -> tuple[str, ...]:
    """Read the name of each logit.

    Args:
        path: a text file with one name per line, in the order of the logits; or JSON: a list of
            names, an object from index to name, or a Hugging Face config with ``id2label``.
        num_labels: how many the model has.

    Raises:
        InputError: the file cannot be read, or has the wrong number of labels.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # editors on Windows begin a file with a mark
        names = _from_json(parse_foreign_json(text)) if path.suffix == ".json" else text.splitlines()
    except (OSError, ValueError, TypeError, KeyError) as e:
        raise InputError(f"the labels in {path} cannot be read ({_reason(e)}); give one name per line, or JSON") from e
    while names and not names[-1].strip():
        names.pop()
    if len(names) != num_labels:
        raise InputError(
            f"{path} names {counted(len(names), 'labels')}, but the model has {num_labels}; it is for another model"
        )
    return tuple(name.strip() for name in names)


def _from_json(content: Any) -> list[str]:
    if isinstance(content, dict):
        named = content.get("id2label", content)
        if not isinstance(named, dict):
            raise TypeError("its id2label is not an object from index to name")
        by_index = {int(index): name for index, name in named.items()}
        content = [by_index[i] for i in range(len(by_index))]
    if not isinstance(content, list) or not all(isinstance(name, str) for name in content):
        raise TypeError("neither a list of names nor an object from index to name")
    return content


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"index {error} is missing"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
