"""Files in a bundle's folder that its manifest does not list: nothing reads them, and no signature covers them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from vivit_export.bundle.names import MANIFEST, SIGNATURE
from vivit_export.bundle.reading import Bundle
from vivit_export.errors import BundleError

_GIT = frozenset({".git", ".gitattributes", ".github", ".gitignore"})  # which OpenSSF Model Signing leaves out, too


def require_all_listed(bundle: Bundle) -> None:
    """Refuse a bundle with other files beside those that it lists.

    A link within the folder, as a ConfigMap of Kubernetes has them, counts as what it leads to.

    Raises:
        BundleError: names the first one.
    """
    root = Path(os.path.realpath(bundle.path))
    names = {*bundle.manifest.files, MANIFEST, SIGNATURE}
    listed = {*(root / name for name in names), *(Path(os.path.realpath(root / name)) for name in names)}
    for path in _paths_in(root):
        if path not in listed and not _is_known(path, root, listed):
            found = bundle.path / path.relative_to(root)
            raise BundleError(
                f"{found} is not listed in {MANIFEST}, so nothing vouches for it; remove it, or move it elsewhere"
            )


def _paths_in(root: Path) -> Iterator[Path]:
    """Yield files and links, also those that lead to folders."""
    for folder, folders, files in os.walk(root):
        if folder == str(root):
            folders[:] = sorted(set(folders) - _GIT)
            files = sorted(set(files) - _GIT)
        yield from (Path(folder, name) for name in files)
        yield from (Path(folder, name) for name in folders if os.path.islink(os.path.join(folder, name)))


def _is_known(path: Path, root: Path, listed: set[Path]) -> bool:
    """Whether a link leads to a listed file, or to a folder that is looked through anyway or on the way to one."""
    if not path.is_symlink():
        return False
    target = Path(os.path.realpath(path))
    on_the_way = path.is_dir() and (root in target.parents or any(path in one.parents for one in listed))
    return target in listed or on_the_way
