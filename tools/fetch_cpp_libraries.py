"""Put the libraries that the C++ tests compile against beside the test environment, without installing them.

Debian packages, unpacked: nlohmann-json3-dev, libssl-dev, doctest-dev and FFmpeg's headers of the machine's own
suite, and the headers of ONNX Runtime, which Debian has from trixie on (its C API is backward compatible: the
headers serve any newer library, such as the one in the onnxruntime wheel).

FFmpeg to run with, in ``ffmpeg/``: the libraries inside a PyAV wheel of the version whose headers trixie has. The PyAV
of the test environment has a newer FFmpeg than any Debian's headers.

    python tools/fetch_cpp_libraries.py    # prints the folder; does nothing if it is complete
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from apt_packages import Apt, codename
from fetched_folder import fetch_versions, pip_install

FFMPEG = ("libavformat-dev", "libavcodec-dev", "libswscale-dev", "libavutil-dev")  # only to compile against
OWN_SUITE = ("nlohmann-json3-dev", "libssl-dev", "doctest-dev", *FFMPEG)
FROM_TRIXIE = ("libonnxruntime-dev",)
AV = "av==15.1.0"  # FFmpeg 7.1, as trixie
FOLDER = Path(sys.prefix) / "share" / "cpp-libraries"


def fetch(folder: Path = FOLDER) -> Path:
    """Unpack the packages to ``folder`` unless they are there, and return it: a prefix with ``usr`` in it.

    Raises:
        subprocess.CalledProcessError: apt could not find or download a package.
        FileNotFoundError: this machine has no apt.
    """
    return fetch_versions(folder, _wanted(), _fill)


def _fill(target: Path, room: Path) -> None:
    apt = Apt(room / "apt", codename(), "trixie")
    for package in OWN_SUITE:
        apt.unpack(f"{package}/{codename()}", target)
    for package in FROM_TRIXIE:
        apt.unpack(f"{package}/trixie", target)
    apt.unpack(f"{apt.library_of('libssl-dev')}/{codename()}", target)  # libcrypto.so points into it
    _add_ffmpeg(apt, target / "ffmpeg")
    for archive in target.rglob("*.a"):  # most of the size, and nothing links them
        archive.unlink()


def _add_ffmpeg(apt: Apt, prefix: Path) -> None:
    """Make a prefix of trixie's headers and a wheel's libraries, which pkg-config finds."""
    for package in FFMPEG:
        apt.unpack(f"{package}/trixie", prefix / "debian")
    (headers,) = (path.parent.parent for path in prefix.glob("debian/usr/include/**/libavformat/avformat.h"))
    shutil.move(headers, prefix / "include")
    shutil.rmtree(prefix / "debian")
    pip_install(AV, prefix / "wheel")
    shutil.move(prefix / "wheel/av.libs", prefix / "lib")
    shutil.rmtree(prefix / "wheel")
    (prefix / "lib/pkgconfig").mkdir()
    for name in (package.removesuffix("-dev") for package in FFMPEG):
        (library,) = (prefix / "lib").glob(f"{name}-*.so.*")
        library.with_name(f"{name}.so").symlink_to(library.name)
        version = library.name.partition(".so.")[2]
        (prefix / f"lib/pkgconfig/{name}.pc").write_text(_PKG_CONFIG.format(name=name, short=name[3:], version=version))


_PKG_CONFIG = """\
prefix=${{pcfiledir}}/../..
Name: {name}
Description: FFmpeg
Version: {version}
Cflags: -I${{prefix}}/include
Libs: -L${{prefix}}/lib -l{short}
"""


def _wanted() -> str:
    return " ".join((codename(), *OWN_SUITE, *FROM_TRIXIE, AV)) + "\n"


if __name__ == "__main__":
    print(fetch())
