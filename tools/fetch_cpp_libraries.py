"""Put the libraries that the C++ tests compile against beside the test environment, without installing them.

Debian packages, unpacked: nlohmann-json3-dev, libssl-dev, doctest-dev and FFmpeg's headers of the machine's own
suite, and the headers of ONNX Runtime, which Debian has from trixie on (its C API is backward compatible: the
headers serve any newer library, such as the one in the onnxruntime wheel). apt runs on a state
folder of its own, so that the machine's own package lists stay as they are.

FFmpeg to run with, in ``ffmpeg/``: the libraries inside a PyAV wheel of the version whose headers trixie has. The PyAV
of the test environment has a newer FFmpeg than any Debian's headers.

    python tools/fetch_cpp_libraries.py    # prints the folder; does nothing if it is complete
"""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

from fetched_folder import fetch_once, pip_install

FFMPEG = ("libavformat-dev", "libavcodec-dev", "libswscale-dev", "libavutil-dev")  # only to compile against
OWN_SUITE = ("nlohmann-json3-dev", "libssl-dev", "doctest-dev", *FFMPEG)
FROM_TRIXIE = ("libonnxruntime-dev",)
AV = "av==15.1.0"  # FFmpeg 7.1, as trixie
FOLDER = Path(sys.prefix) / "share" / "cpp-libraries"
_MARKER = "complete.txt"


def is_complete(folder: Path) -> bool:
    """Return whether all packages lie in ``folder``."""
    marker = folder / _MARKER
    return marker.is_file() and marker.read_text() == _wanted()


def fetch(folder: Path = FOLDER) -> Path:
    """Unpack the packages to ``folder`` unless they are there, and return it: a prefix with ``usr`` in it.

    Raises:
        subprocess.CalledProcessError: apt could not find or download a package.
        FileNotFoundError: this machine has no apt.
    """
    return fetch_once(folder, is_complete, _fill)


def _fill(target: Path, room: Path) -> None:
    apt = _Apt(room / "apt")
    for package in OWN_SUITE:
        apt.unpack(f"{package}/{_codename()}", target)
    for package in FROM_TRIXIE:
        apt.unpack(f"{package}/trixie", target)
    apt.unpack(f"{apt.library_of('libssl-dev')}/{_codename()}", target)  # libcrypto.so points into it
    _add_ffmpeg(apt, target / "ffmpeg")
    for archive in target.rglob("*.a"):  # most of the size, and nothing links them
        archive.unlink()
    (target / _MARKER).write_text(_wanted())


def _add_ffmpeg(apt: _Apt, prefix: Path) -> None:
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


class _Apt:
    """apt-get with package lists of its own: the machine's suites and trixie."""

    def __init__(self, home: Path) -> None:
        self._home = home
        for name in ("lists/partial", "parts", "cache/archives/partial", "packages"):
            (home / name).mkdir(parents=True)
        found = self._run("indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages").splitlines()
        (site,) = {line.split()[0] for line in found if line.split()[1] == _codename()}
        lines = [f"deb {site} {suite} main\n" for suite in dict.fromkeys((_codename(), "trixie"))]
        (home / "parts/suites.list").write_text("".join(lines))
        self._options = [
            "-oDir::Etc::SourceList=/dev/null",
            f"-oDir::Etc::SourceParts={home}/parts",
            f"-oDir::State::Lists={home}/lists",
            f"-oDir::Cache={home}/cache",
            "-oAPT::Sandbox::User=root",
        ]
        self._run("update", *self._options)

    def unpack(self, package: str, target: Path) -> None:
        """Download ``NAME/SUITE`` and unpack it below ``target``."""
        target.mkdir(parents=True, exist_ok=True)
        name = package.partition("/")[0]
        for other in (self._home / "packages").glob(f"{name}_*.deb"):  # of another suite
            other.unlink()
        self._run("download", package, *self._options)
        subprocess.run(["dpkg", "-x", self._archive(name), target], check=True)

    def library_of(self, package: str) -> str:
        """Name of the first package that an unpacked one depends on."""
        command = ["dpkg-deb", "--field", str(self._archive(package)), "Depends"]
        depends = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return re.split(r"[ ,(]", depends)[0]

    def _archive(self, package: str) -> Path:
        (archive,) = (self._home / "packages").glob(f"{package}_*.deb")
        return archive

    def _run(self, *arguments: str) -> str:
        command = ["apt-get", "-qq", *arguments]
        return subprocess.run(
            command, check=True, stdout=subprocess.PIPE, text=True, cwd=self._home / "packages"
        ).stdout


def _wanted() -> str:
    return " ".join((_codename(), *OWN_SUITE, *FROM_TRIXIE, AV)) + "\n"


def _codename() -> str:
    return platform.freedesktop_os_release()["VERSION_CODENAME"]


if __name__ == "__main__":
    print(fetch())
