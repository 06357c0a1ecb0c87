"""Pack the installed package into a wheel: images install it from there, so that they need no index that has it.

The wheel has the bytes of what is running, whether it was installed from an index or is edited in place. The same
files give the same wheel.
"""

from __future__ import annotations

import base64
import hashlib
import zipfile
from importlib.metadata import Distribution, distributions
from pathlib import Path

import vivit_export
from vivit_export.errors import EnvironmentFault

_NAME = "vivit_export"
_WRITTEN = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip file can say
_MODE = 0o100644 << 16
# Of what pip writes when it installs a wheel, and of what setuptools adds to a checkout.
_KEPT_METADATA = ("METADATA", "entry_points.txt", "top_level.txt", "licenses/LICENSE")
_WHEEL = "Wheel-Version: 1.0\nGenerator: vivit_export\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def wheel_name() -> str:
    """Return the file name that pip insists on."""
    return f"{_NAME}-{vivit_export.__version__}-py3-none-any.whl"


def write_wheel(folder: Path) -> Path:
    """Write a wheel of the package that is running.

    Args:
        folder: gets the file, named `wheel_name`.

    Returns:
        The file.

    Raises:
        EnvironmentFault: the package was copied here without its metadata.
    """
    files = {**_package_files(), **_metadata_files()}
    record = f"{_NAME}-{vivit_export.__version__}.dist-info/RECORD"
    lines = [f"{name},sha256={_digest(data)},{len(data)}\n" for name, data in files.items()]
    files[record] = "".join([*lines, f"{record},,\n"]).encode()
    target = folder / wheel_name()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name, _WRITTEN)
            entry.external_attr, entry.compress_type = _MODE, zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)
    return target


def _package_files() -> dict[str, bytes]:
    root = Path(vivit_export.__file__).parent
    paths = (path for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {f"{_NAME}/{path.relative_to(root).as_posix()}": path.read_bytes() for path in sorted(paths)}


def _metadata_files() -> dict[str, bytes]:
    found = _installed()
    texts = {name: text for name in _KEPT_METADATA if (text := found.read_text(name))}
    if "METADATA" not in texts and (text := found.read_text("PKG-INFO")):  # a checkout that setuptools prepared
        texts["METADATA"] = text
    folder = f"{_NAME}-{vivit_export.__version__}.dist-info"
    return {f"{folder}/{name}": text.encode() for name, text in sorted({**texts, "WHEEL": _WHEEL}.items())}


def _installed() -> Distribution:
    found = list(distributions(name="vivit-export"))
    if not found:
        raise EnvironmentFault(
            "the deployment needs a wheel of vivit-export, which is not installed here but only copied; install it "
            "with pip"
        )
    # Run from a checkout, what setuptools prepared there is found first; what pip installed says more.
    return next((one for one in found if one.read_text("METADATA")), found[0])


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
