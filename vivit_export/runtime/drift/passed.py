"""Remember which self-tests passed, in the user's cache.

A test is an empty file that is named by the SHA-256 of all that it depends on. So there is nothing to read that could
be damaged, half written, or hostile; whoever can make such a file could as well switch the self-test off. A failure is
not remembered: what failed is run again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path

from vivit_export.files import cache_folder

MOST_REMEMBERED = 512
"""Files in the folder; if there are more, the older half is removed."""
_NAME = re.compile(r"[0-9a-f]{64}", re.ASCII)


def key_of(facts: Mapping[str, str]) -> str:
    """Return the name of a test that depends on these facts alone, 64 hexadecimal digits."""
    text = "".join(f"{name}={len(value)}:{value}\n" for name, value in sorted(facts.items()))
    return hashlib.sha256(f"vivit-self-test/1\n{text}".encode()).hexdigest()


def passed_before(key: str) -> bool:
    """Whether this user saw this test pass; False if that cannot be found out."""
    try:
        found = os.lstat(_folder() / key)
    except (OSError, RuntimeError):
        return False
    return stat.S_ISREG(found.st_mode) and not found.st_size and found.st_uid == os.geteuid()


def remember(key: str) -> None:
    """Remember that a test passed, if this user has a cache that can be written."""
    with contextlib.suppress(OSError, RuntimeError):
        folder = _folder()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(folder / key, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        _forget_the_oldest(folder)


def _folder() -> Path:
    return cache_folder("self-tests")


def _forget_the_oldest(folder: Path) -> None:
    with os.scandir(folder) as entries:
        found = [(entry.stat(follow_symlinks=False).st_mtime, entry.name) for entry in entries if _is_ours(entry)]
    if len(found) > MOST_REMEMBERED:
        for _, name in sorted(found)[: len(found) - MOST_REMEMBERED // 2]:
            with contextlib.suppress(OSError):  # another process was faster
                os.unlink(folder / name)


def _is_ours(entry: os.DirEntry[str]) -> bool:
    return _NAME.fullmatch(entry.name) is not None and entry.is_file(follow_symlinks=False)
