"""The error hierarchy: one base class, one exit code per kind of failure.

Every message is one sentence that names the thing, its value and the fix, in the caller's words: `option`
marks an option, which Python callers know by its name and the command line by its flag. The command line
prints the sentence after ``error:`` and exits with ``exit_code``; only bugs in this package show a
traceback.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

# Delimiters that no text from a user contains: private-use characters.
_FIELD = re.compile("\ue000([^\ue000-\ue002]*)\ue001(?:([^\ue000-\ue002]*)\ue002)?")


def option(name: str, value: object = None) -> str:
    """Name an option in the message of an error.

    Args:
        name: name of the parameter or of the field of an options class; ``batches.min`` for a part of one.
        value: its current or suggested value; None: only the option is named.
    """
    return f"\ue000{name}\ue001" if value is None else f"\ue000{name}\ue001{value}\ue002"


def counted(number: int, things: str) -> str:
    """Return a number with what it counts: ``1 video``, ``2 videos``.

    Args:
        number: how many.
        things: a plural whose first word in ``s`` loses it for one, such as ``videos`` or ``files of a video``.
    """
    if number != 1:
        return f"{number} {things}"
    noun = next(word for word in things.split() if word.endswith("s"))
    return f"1 {things.replace(noun, noun[:-1], 1)}"


def in_python(name: str, value: str | None) -> str:
    """Return an option as Python callers write it."""
    return name if value is None else f"{name}={value}"


class VivitExportError(Exception):
    """Base of all errors that a user can act on."""

    exit_code: int = 1

    def __str__(self) -> str:
        return self.worded(in_python)

    @property
    def sentence(self) -> str:
        """The message with every `option` still marked, to be part of another error's."""
        return super().__str__()

    def worded(self, word: Callable[[str, str | None], str]) -> str:
        """Return the message with every `option` replaced with ``word(name, value)``."""
        return worded(self.sentence, word)

    def lines(self, word: Callable[[str, str | None], str]) -> list[str]:
        """Return the lines of the message, worded; a name within a line may have breaks of its own."""
        return [self.worded(word)]


def worded(text: str, word: Callable[[str, str | None], str] = in_python) -> str:
    """Return a `VivitExportError.sentence` with every `option` replaced with ``word(name, value)``."""
    return _FIELD.sub(lambda found: word(found[1], found[2]), text)


class UsageError(VivitExportError):
    """Options that conflict, that a target does not support, or that are out of range."""

    exit_code = 2


class InputError(VivitExportError):
    """Unusable input: a checkpoint, a clip, a bundle, a target folder."""

    exit_code = 3


class CheckpointError(InputError):
    """A checkpoint that cannot be found, read, or is not a ViViT."""


class ClipError(InputError):
    """A video or an array of frames that does not fit the contract."""


class ClipErrors(ClipError):  # noqa: N818 - more than one
    """Several videos that could not be used: a line that says so, and one for each.

    Args:
        title: that line.
        faults: what is wrong with each, with every `option` still marked.
    """

    def __init__(self, title: str, faults: Sequence[str]) -> None:
        self._lines = (title, *(f"  {fault}" for fault in faults))
        super().__init__("\n".join(self._lines))

    def lines(self, word: Callable[[str, str | None], str]) -> list[str]:
        """Return the lines of the message, worded: the title, and one for each video."""
        return [worded(line, word) for line in self._lines]


class BundleError(InputError):
    """A bundle that is incomplete, altered, or of another format version."""


class SignatureError(BundleError):
    """A bundle that is not signed by whom it must be signed by."""


class CalibrationError(InputError):
    """Activations, ranges or a cache that cannot be used to quantize this model."""


class OutputError(InputError):
    """A target folder that exists, cannot be written, or is on a full disk."""


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
