"""Packages that may be absent, broken or too old: which extra of ours installs them, and the lowest versions.

pyproject.toml states both again for pip; a test compares.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from vivit_export.errors import EnvironmentFault, MissingDependencyError, VivitExportError, option

_OURS = "vivit_export"
EXPORT = "export"
REPORT = "report"
SIGN = "sign"
RAY = "ray"
HUB = "hub"
# Modules that the base install does not have, by the extra that installs them. Those of the engines are not here:
# their errors name the engine.
EXTRAS = {
    "torch": EXPORT,
    "transformers": EXPORT,
    "huggingface_hub": HUB,
    "onnx_ir": EXPORT,
    "onnxscript": EXPORT,
    "jinja2": REPORT,
    "cryptography": SIGN,
    "ray": RAY,
    "pyarrow": RAY,
}
BASE = {"av", "click", "numpy", "onnx", "PIL", "rich", "safetensors", "tomli"}  # modules of what every install has
_NEEDED_FOR = {
    EXPORT: "exporting a checkpoint, or running it in PyTorch, needs",
    REPORT: "a report as a page needs",
    SIGN: "signing a bundle, or verifying who signed it, needs",
    RAY: "running on Ray needs",
    HUB: "a bundle on the hub needs",
}
# PyAV before 17 ignores that a stream says BT.709, which is up to 36 levels off, and 14.0 does not know turned videos.
# 17.0 crashes if streams appear while it looks into a file with options for decoders, as those of FLV do.
LOWEST_PYAV = "17.1"
ORT_WITH_CODES_BESIDE_ATTENTION = "1.24"


def how_to_install(extra: str | None = None) -> str:
    """Return the command that installs this package with one of its extras."""
    return f'pip install "vivit-export[{extra}]"' if extra else "pip install vivit-export"


def missing_package(module: str) -> MissingDependencyError:
    """Return an error that says which extra installs a module that was not found."""
    name = module.partition(".")[0]
    extra = EXTRAS.get(name)
    if extra == EXPORT and not is_there("onnxruntime"):
        extra = f"{EXPORT},cpu"  # what comes next is the check of the export
    what = _NEEDED_FOR[EXTRAS[name]] if name in EXTRAS else "this needs"
    package = name.replace("_", "-")
    of_others = name not in EXTRAS and name not in BASE  # a package that we need was installed without its own needs
    command = f"pip install {package}" if of_others else how_to_install(extra)
    return MissingDependencyError(f"{what} the package {package}, which is not installed; install it with: {command}")


def broken_package(error: Exception) -> EnvironmentFault | None:
    """Return an error that says which package is installed but cannot be imported, if that is what happened.

    A package raises any kind of error then: an ImportError if a library of the system is not there, others if it does
    not fit another package.

    Args:
        error: was raised by a call; modules that import the caller are none of its business.
    """
    module = None if isinstance(error, (VivitExportError, MemoryError)) else _module_that_failed(error)
    if module is None:
        return None
    import importlib.metadata  # takes 15 ms

    package = (importlib.metadata.packages_distributions().get(module) or [module])[0].lower()
    first = (str(error).strip().splitlines() or [""])[0]
    reason = first if isinstance(error, ImportError) and first else f"{type(error).__name__}: {first}"
    if sys.flags.optimize > 1:
        remedy = "unset PYTHONOPTIMIZE, or run Python without -OO, which takes away texts that packages read"
    else:
        remedy = f"repair it, for example with: pip install --force-reinstall {package}"
    return EnvironmentFault(f"the package {package} is installed but cannot be imported ({reason}); {remedy}")


def _module_that_failed(error: Exception) -> str | None:
    """The first module on the way to an error that was being imported, by its package; None: there was none."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        package = str(frame.f_globals.get("__name__")).partition(".")[0]
        if frame.f_code.co_name == "<module>" and package not in (_OURS, "__main__"):
            return package
    name = error.name if isinstance(error, ImportError) else None  # of a module that is not Python
    if isinstance(error, SyntaxError) and error.filename:  # as of a newer Python's
        inside = [os.path.relpath(error.filename, place) for place in sys.path if place]
        name = min((path for path in inside if not path.startswith(os.pardir)), key=len, default=None)
    package = re.split(r"[./\\]", name)[0] if name else _OURS
    return None if package == _OURS else package


def raise_if_interrupted(error: BaseException) -> None:
    """Let Ctrl-C during an import be Ctrl-C: extension modules turn it into an ImportError.

    Raises:
        KeyboardInterrupt: that is what the error comes from.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, KeyboardInterrupt):
            raise KeyboardInterrupt from error
        cause = cause.__cause__ or cause.__context__


def require_export_packages() -> None:
    """Refuse to begin an export that could not be finished. Nothing is imported.

    Raises:
        MissingDependencyError: the extra ``export`` is not installed.
    """
    for module, extra in EXTRAS.items():
        if extra == EXPORT and not is_there(module):
            raise missing_package(module)


def is_there(module: str) -> bool:
    """Return whether a module is installed; it is not imported."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


@contextmanager
def naming_the_extra() -> Iterator[None]:
    """Turn a package that is missing or broken into an error that says what to do.

    Raises:
        MissingDependencyError: a module outside this package was not found.
        EnvironmentFault: one was, but cannot be imported.
    """
    try:
        yield
    except Exception as e:
        raise_if_interrupted(e)
        fault = import_fault(e)
        if fault is None:
            raise
        raise fault from e


def import_fault(error: Exception) -> EnvironmentFault | None:
    """Return `missing_package` or `broken_package` for what an error comes from; None: it comes from neither."""
    if isinstance(error, ModuleNotFoundError) and error.name and error.name.partition(".")[0] != _OURS:
        return missing_package(error.name)
    return broken_package(error)


@contextmanager
def importing(module: str, title: str, install: str) -> Iterator[None]:
    """Do as `naming_the_extra` does for the import of a module, with another sentence if it is missing.

    Args:
        module: what is imported.
        title: its name, for people.
        install: the command that installs it.

    Raises:
        MissingDependencyError: it, or what it needs itself, is not installed.
        EnvironmentFault: it cannot be imported.
    """
    with naming_the_extra():
        try:
            yield
        except ModuleNotFoundError as e:
            if e.name is None or not is_there(module.partition(".")[0]):
                raise MissingDependencyError(f"{title} is not installed; install it with: {install}") from e
            raise MissingDependencyError(
                f"{title} needs {e.name}, which was not found; install it with: {install}"
            ) from e


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
    if is_older(installed, lowest):
        command = how_to_install(extra).replace("install", "install --upgrade", 1)
        raise EnvironmentFault(
            f"{title} {installed} is installed, but {lowest} or newer is needed, because {why}; upgrade it with: "
            f"{command}"
        )


def installed_onnxruntime() -> str | None:
    """Return the version of the installed ONNX Runtime, or None, without loading it."""
    import importlib.metadata

    for name in ("onnxruntime", "onnxruntime-gpu"):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def require_codes_beside_attention(precision: str) -> None:
    """Refuse a check that this ONNX Runtime cannot run: codes in a graph of the opset with attention as one op.

    A session runs such a graph nevertheless, because it replaces that op.

    Raises:
        EnvironmentFault: it is too old.
    """
    installed = installed_onnxruntime()
    if installed is not None and is_older(installed, ORT_WITH_CODES_BESIDE_ATTENTION):
        raise EnvironmentFault(
            f"ONNX Runtime {installed} cannot run {precision} beside attention as one op, so the graph could not be "
            f"checked; pass {option('attention', 'pattern')}, or install {ORT_WITH_CODES_BESIDE_ATTENTION} or newer, "
            "which needs Python 3.11"
        )


def is_older(installed: str, than: str) -> bool:
    """Return whether a version such as ``1.23.2`` comes before another."""
    return _release(installed) < _release(than)


def _release(version: str) -> tuple[int, ...]:
    """The first three numbers: 17.0.1rc1 is (17, 0, 1), and 17 is (17, 0, 0)."""
    found = re.match(r"\d+(?:\.\d+)*", version)
    numbers = map(int, found[0].split(".")) if found else ()
    return (*numbers, 0, 0, 0)[:3]
