"""The inputs that a target starts from: seeds, which are files, and what fuzzing found worth keeping, which is packed.

``seeds/TARGET/`` is written by ``write_seeds.py``, ``corpora/TARGET.zip`` by ``run_fuzzers.py --keep``. Targets that
read the same share both.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterable
from pathlib import Path

HERE = Path(__file__).parent
_SEEDS_OF = {
    "cpp_json": "strict_json",
    "cpp_contract": "contract",
    "cpp_manifest": "manifest",
    "cpp_packets": "packets",
    "both_languages": "manifest",
}
_WRITTEN = (1980, 1, 1, 0, 0, 0)  # the same inputs give the same bytes


TINY_FILES = {
    "model.onnx": b"graph",
    "golden.safetensors": b"clips",
    "engines/rtx.plan": b"plan",
    "engines/rtx.json": b"{}",
}
"""The files that ``seeds/manifest/whole.json`` lists."""


def lay_out(folder: Path) -> Path:
    """Write `TINY_FILES`, so that a folder lacks only the manifest."""
    for name, data in TINY_FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def inputs(target: str) -> dict[str, bytes]:
    """Return every input kept for a target, by name."""
    kept = {path.name: path.read_bytes() for path in _seeds(target)}
    for archive in {_archive(target), _archive(_SEEDS_OF.get(target, target))}:
        if archive.is_file():
            with zipfile.ZipFile(archive) as packed:
                kept |= {name: packed.read(name) for name in packed.namelist()}
    return kept


def unpack(target: str, folder: Path, prefix: bytes = b"") -> Path:
    """Write every input kept for a target to a folder, each behind ``prefix``."""
    folder.mkdir(parents=True, exist_ok=True)
    for data in inputs(target).values():
        (folder / hashlib.sha1(prefix + data).hexdigest()).write_bytes(prefix + data)
    return folder


def keep(target: str, found: Iterable[bytes]) -> Path:
    """Pack inputs for a target, in place of those that were packed before; seeds are not packed."""
    seeds = {path.read_bytes() for path in _seeds(target)}
    path = _archive(target)
    path.parent.mkdir(exist_ok=True)
    new = {hashlib.sha1(data).hexdigest()[:12]: data for data in found if data not in seeds}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in sorted(new.items()):
            packed.writestr(zipfile.ZipInfo(name, _WRITTEN), data, zipfile.ZIP_DEFLATED)
    return path


def _seeds(target: str) -> list[Path]:
    return sorted((HERE / "seeds" / _SEEDS_OF.get(target, target)).glob("*"))


def _archive(target: str) -> Path:
    return HERE / "corpora" / f"{target}.zip"
