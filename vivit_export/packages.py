"""Packages that may be absent or too old: which extra of ours installs them, and the lowest versions that are right.

pyproject.toml states both again for pip; a test compares.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from contextlib import contextmanager

from vivit_export.errors import EnvironmentFault, MissingDependencyError

EXPORT = "export"
SIGN = "sign"
# Modules that the base install does not have, by the extra that installs them. Those of the engines are not here:
# their errors name the engine.
EXTRAS = {
    "torch": EXPORT,
    "transformers": EXPORT,
    "huggingface_hub": EXPORT,
    "onnx_ir": EXPORT,
    "onnxscript": EXPORT,
    "cryptography": SIGN,
}
_NEEDED_FOR = {
    EXPORT: "exporting a checkpoint, or running it in PyTorch, needs",
    SIGN: "signing a bundle, or verifying who signed it, needs",
}
# PyAV before 17 ignores that a stream says BT.709, which is up to 36 levels off, and 14.0 does not know turned videos.
LOWEST_PYAV = "17.0"


def how_to_install(extra: str | None = None) -> str:
    """Return the command that installs this package with one of its extras."""
    return f'pip install "vivit-export[{extra}]"' if extra else "pip install vivit-export"


def missing_package(module: str) -> MissingDependencyError:
    """Return an error that says which extra installs a module that was not found."""
    name = module.partition(".")[0]
    extra = EXTRAS.get(name)
    if extra == EXPORT and not _is_there("onnxruntime"):
        extra = f"{EXPORT},cpu"  # what comes next is the check of the export
    what = _NEEDED_FOR[EXTRAS[name]] if name in EXTRAS else "this needs"
    return MissingDependencyError(
        f"{what} the package {name.replace('_', '-')}, which is not installed; install it with: {how_to_install(extra)}"
    )


def require_export_packages() -> None:
    """Refuse to begin an export that could not be finished. Nothing is imported.

    Raises:
        MissingDependencyError: the extra ``export`` is not installed.
    """
    for module, extra in EXTRAS.items():
        if extra == EXPORT and not _is_there(module):
            raise missing_package(module)


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


@contextmanager
def naming_the_extra() -> Iterator[None]:
    """Turn a missing package into an error that says what to install.

    Raises:
        MissingDependencyError: a module outside this package was not found.
    """
    try:
        yield
    except ModuleNotFoundError as e:
        if e.name is None or e.name.partition(".")[0] == "vivit_export":
            raise
        raise missing_package(e.name) from e


def require_version(title: str, installed: str, lowest: str, why: str, extra: str | None = None) -> None:
    """Refuse a version that is known to be wrong or was never tried.

    Args:
        title: name of the product, for people.
        installed: its version, such as ``14.0.1``.
        lowest: the first that is accepted.
        why: what an older one lacks, to follow "because".
        extra: extra of ours that installs it; None: the base install has it.

    Raises:
        EnvironmentFault: the installed one is older.
    """
    if _release(installed) < _release(lowest):
        command = how_to_install(extra).replace("install", "install --upgrade", 1)
        raise EnvironmentFault(
            f"{title} {installed} is installed, but {lowest} or newer is needed, because {why}; upgrade it with: "
            f"{command}"
        )


def _release(version: str) -> tuple[int, ...]:
    """The first three numbers: 17.0.1rc1 is (17, 0, 1), and 17 is (17, 0, 0)."""
    found = re.match(r"\d+(?:\.\d+)*", version)
    numbers = map(int, found[0].split(".")) if found else ()
    return (*numbers, 0, 0, 0)[:3]
