"""Write the embeddings of predicted videos to a file."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from vivit_export.bundle import MANIFEST, Bundle
from vivit_export.contract import Contract
from vivit_export.errors import OutputError, UsageError, option
from vivit_export.files import check_file
from vivit_export.runtime.embedding_file import EmbeddingFile
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


def save_embeddings(path: Path, predictions: Iterable[VideoPrediction], *, force: bool = False) -> None:
    """Write embeddings as an `EmbeddingFile` does.

    Args:
        path: the file; a symbolic link is followed.
        predictions: at least one.
        force: replace an existing file.

    Raises:
        OutputError: the file exists or cannot be written.
        UsageError: there are no embeddings.
    """
    with EmbeddingFile(path, force=force) as file:
        for result in predictions:
            file.add(result.prediction, str(result.path), result.span_seconds)
        file.save()


def _same_file(one: Path, other: Path) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:  # one of them does not exist
        return False
