"""Model repositories with several deployments: each is added and replaced as a whole, beside the others.

::

    repository/
      NAME/           config.pbtxt, 1/, labels.txt, warmup/; README.md and deployment.json, which Triton passes over
      NAME-frames/    in front of it, where encoded videos are taken
      NAME-video/
      ANOTHER/        not touched
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from vivit_export.bundle import MANIFEST, Bundle
from vivit_export.deploy.listing import LISTING, Deployment, read_deployment, require_outside, write_listing
from vivit_export.deploy.triton.config import CONFIG
from vivit_export.deploy.triton.moving import finish_moves, move_in
from vivit_export.errors import BundleError, OutputError, option
from vivit_export.files import refusals, require_writable
from vivit_export.folders import filling
from vivit_export.locking import locked_if_there
from vivit_export.runtime.session.triton.protocol import FRAMES_SUFFIX, VIDEO_SUFFIX


@contextmanager
def adding(
    bundle: Bundle, repository: Path, names: Sequence[str], force: bool, note: Callable[[str], object] = str
) -> Iterator[Path]:
    """Yield a hidden sibling of a repository to fill with model folders; move them there on success, else remove them.

    Args:
        bundle: the bundle to deploy.
        repository: the repository, created if missing.
        names: names of the model folders, the engine's first.
        force: replace a deployment of the first name, with all its folders.
        note: told if this waits for another process that changes the repository, and of what an interrupted run left,
            which is finished or removed.

    Raises:
        OutputError: a name is taken, files would be lost, or the folder cannot be written.
    """
    require_outside(bundle, repository)
    within = repository if os.path.ismount(repository) else None  # a volume: its parent is on another disk
    with refusals(repository, any_reason=True):
        finish_moves(Path(os.path.realpath(repository)), note, within=within)
    with filling(
        repository,
        check=lambda: _check(repository, names, force),
        put=lambda work, place: move_in(work, place, _folders(place, names[0])),
        within=within,
        hold=lambda place: locked_if_there(place, note),
        note=note,
    ) as work:
        yield work
        write_listing(work, f"{names[0]}/{LISTING}", "triton", bundle)


def read_model(repository: Path, name: str) -> Deployment:
    """Read the listing of one deployment in a repository.

    Raises:
        BundleError: it is not a deployment.
    """
    return read_deployment(repository, f"{name}/{LISTING}")


def _check(repository: Path, names: Sequence[str], force: bool) -> None:
    for folder in Path(os.path.realpath(repository)).parents:
        if os.path.lexists(folder / CONFIG):
            raise OutputError(f"{repository} lies inside the model {folder}; choose a folder outside of it")
    if not os.path.ismount(repository):
        require_writable(repository, repository.absolute().parent)
    if not os.path.lexists(repository):
        return
    if not repository.is_dir():
        raise OutputError(f"{repository} exists and is not a folder; choose another name")
    require_writable(repository, repository)
    for listing in (MANIFEST, LISTING, CONFIG):
        if os.path.lexists(repository / listing):
            raise OutputError(f"{repository} has a {listing}, so it is not a model repository; choose another folder")
    replaceable = _folders(repository, names[0])
    for name in names:
        if name not in replaceable and os.path.lexists(repository / name):
            raise OutputError(
                f"{repository / name} exists and is not a deployment of {names[0]}, so it is left alone; "
                f"choose another {option('name')}"
            )
    if replaceable and not force:
        raise OutputError(
            f"{repository / names[0]} exists; pass {option('force')} to replace that deployment, or choose another "
            f"{option('name')}"
        )
    listed = {f"{names[0]}/{LISTING}", *_files(repository, names[0])}
    for path in (path for name in replaceable for path in (repository / name).rglob("*")):
        if (path.is_symlink() or not path.is_dir()) and not _is_part(path.relative_to(repository), listed):
            raise OutputError(f"{path} is not part of the deployment and would be lost; move it elsewhere")


def _is_part(path: Path, listed: set[str]) -> bool:
    """Return whether a deployment lists a file, or Python compiled it from one that it lists."""
    if path.parent.name == "__pycache__":  # the server has run the model
        with contextlib.suppress(ValueError):  # another name than Python gives
            return Path(importlib.util.source_from_cache(str(path))).as_posix() in listed
    return path.as_posix() in listed


def _files(repository: Path, name: str) -> set[str]:
    try:
        return set(read_model(repository, name).files)
    except BundleError:
        return set()


def _folders(repository: Path, name: str) -> list[str]:
    """Return the folders of an existing deployment: those of its possible folders that it lists."""
    listed = {file.partition("/")[0] for file in _files(repository, name)}
    own = (name, name + FRAMES_SUFFIX, name + VIDEO_SUFFIX)
    return [folder for folder in own if folder in listed and (repository / folder).is_dir()]
