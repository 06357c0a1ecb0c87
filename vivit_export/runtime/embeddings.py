"""Write the embeddings of predicted videos to a file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save

from vivit_export.bundle import MANIFEST, Bundle
from vivit_export.contract import Contract
from vivit_export.errors import OutputError, UsageError, option
from vivit_export.files import check_file, writing_file
from vivit_export.runtime.predict import VideoPrediction


def require_outputs(
    contract: Contract, embeddings: Path | None, *, force: bool = False, inputs: Iterable[Path] = ()
) -> None:
    """Refuse outputs that the bundle does not have, and a file that must not or cannot be written.

    Args:
        contract: of the model.
        embeddings: file for the embeddings; None: only logits are shown.
        force: replace an existing file.
        inputs: files that are read, and must not be replaced even with ``force``.

    Raises:
        UsageError: it has no logits to show, or no embedding to write; or there is no file to replace.
        OutputError: the file is an input, or see `vivit_export.files.check_file`.
    """
    outputs = {tensor.name for tensor in contract.io.outputs}
    if embeddings is None:
        if "logits" not in outputs:
            raise UsageError(
                f"this bundle has no logits, only an embedding; write that with {option('embedding', 'FILE')}"
            )
        if force:
            raise UsageError(f"{option('force')} replaces the file of {option('embedding', 'FILE')}; give both")
        return
    if "embedding" not in outputs:
        raise UsageError(
            f"{option('embedding')}: this bundle has none; export it with {option('outputs', 'logits,embedding')}"
        )
    for path in inputs:
        if _same_file(path, embeddings):
            raise OutputError(f"{option('embedding', embeddings)} is a file to read from; choose another name")
    check_file(embeddings, force)


def files_of(bundle: Bundle | str) -> list[Path]:
    """Return the files of a bundle; a served model has none here."""
    return [] if isinstance(bundle, str) else [bundle.path / name for name in (MANIFEST, *bundle.manifest.files)]


def save_embeddings(path: Path, predictions: Sequence[VideoPrediction], *, force: bool = False) -> None:
    """Write embeddings as safetensors, to a temporary file that is then renamed.

    The file holds ``embedding`` float32 (N, hidden) and, for windows, ``span_seconds`` float64 (N, 2). Its metadata
    holds ``videos``, a JSON list of the N paths.

    Args:
        path: the file; a symbolic link is followed.
        predictions: N of them, at least one.
        force: replace an existing file.

    Raises:
        OutputError: the file exists or cannot be written.
    """
    tensors: dict[str, npt.NDArray[Any]] = {"embedding": np.stack([_embedding(p) for p in predictions])}
    spans = [p.span_seconds for p in predictions if p.span_seconds is not None]
    if len(spans) == len(predictions):
        tensors["span_seconds"] = np.array(spans, np.float64)
    content = save(tensors, {"videos": json.dumps([str(p.path) for p in predictions])})
    with writing_file(path, force=force) as part:
        part.write_bytes(content)


def _embedding(prediction: VideoPrediction) -> npt.NDArray[np.float32]:
    embedding = prediction.prediction.embedding
    if embedding is None:
        raise UsageError(f"this bundle has no embedding; export it with {option('outputs', 'logits,embedding')}")
    return embedding


def _same_file(one: Path, other: Path) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:  # one of them does not exist
        return False
