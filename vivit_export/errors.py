"""The error hierarchy: one base class, one exit code per kind of failure.

Every message is one sentence that names the thing, the value that was met and the fix.
The command line prints it after ``error:`` and exits with ``exit_code``; a traceback is
reserved for faults of our own.
"""

from __future__ import annotations


class VivitExportError(Exception):
    """Base of all errors that a user can act on."""

    exit_code: int = 1


class UsageError(VivitExportError):
    """Options that conflict, that a target cannot honour, or that are out of range."""

    exit_code = 2


class InputError(VivitExportError):
    """Unusable input: a checkpoint, a clip, a bundle, a target folder."""

    exit_code = 3


class CheckpointError(InputError):
    """A checkpoint that cannot be found, read, or is not a ViViT."""


class ClipError(InputError):
    """A video or an array of frames that does not fit the contract."""


class BundleError(InputError):
    """A bundle that is incomplete, altered, or of another format version."""


class CalibrationError(InputError):
    """Activations, ranges or a cache that cannot be used to quantise this model."""


class OutputError(InputError):
    """A target folder that exists, cannot be written, or has no room left."""


class BuildError(VivitExportError):
    """The compiler, or the graph made for it, failed."""

    exit_code = 4


class DriftError(VivitExportError):
    """The exported model differs from the reference by more than the gate allows."""

    exit_code = 5


class PrecisionError(VivitExportError):
    """The compiled plan does not keep the promised precision or attention fusion."""

    exit_code = 6


class EnvironmentFault(VivitExportError):  # noqa: N818 - EnvironmentError is a built-in name
    """A missing dependency, driver or device, or an engine made for another machine."""

    exit_code = 7


class MissingDependencyError(EnvironmentFault, ImportError):
    """An optional package is not installed; the message names the extra to install."""
