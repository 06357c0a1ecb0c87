"""Put GStreamer's RTSP server beside the test environment, without installing it: Debian packages, unpacked (30 MB).

Only a few of its plugins are needed, and these are linked into one folder. All that they need but the C library comes
along, so the packages of one suite serve any machine with a C library as new.

    python tools/fetch_gstreamer.py    # prints the folder; does nothing if it is complete
"""

from __future__ import annotations

import sys
from pathlib import Path

from apt_packages import Apt
from fetched_folder import fetch_versions

SUITE = "bookworm"
PACKAGES = (
    *("libgstreamer1.0-0", "libgstreamer-plugins-base1.0-0", "libgstrtspserver-1.0-0", "gstreamer1.0-plugins-good"),
    *("gstreamer1.0-plugins-base", "libglib2.0-0", "liborc-0.4-0", "libpcre2-8-0", "libffi8", "libunwind8", "libdw1"),
    *("libelf1", "libcap2", "libmount1", "libblkid1", "libselinux1", "libbz2-1.0", "zlib1g", "liblzma5"),
)
PLUGINS = ("coreelements", "isomp4", "rtp", "rtpmanager", "tcp", "udp", "app")
FOLDER = Path(sys.prefix) / "share" / "gstreamer"


def fetch(folder: Path = FOLDER) -> Path:
    """Unpack the packages to ``folder`` unless they are there, and return it: ``lib/`` and ``plugins/``.

    Raises:
        subprocess.CalledProcessError: apt could not find or download a package.
        FileNotFoundError: this machine has no apt.
    """
    return fetch_versions(folder, f"{SUITE} {' '.join(PACKAGES)} {' '.join(PLUGINS)}\n", _fill)


def _fill(target: Path, room: Path) -> None:
    apt = Apt(room / "apt", SUITE)
    apt.unpack_all([f"{package}/{SUITE}" for package in PACKAGES], target / "debian")
    (library,) = target.glob("debian/usr/lib/**/libgstreamer-1.0.so.0")
    (target / "lib").mkdir()
    (target / "plugins").mkdir()
    for path in (*library.parent.glob("*.so*"), *target.glob("debian/lib/*/*.so*")):
        link = target / "lib" / path.name
        if path.is_file() and not link.exists():
            link.symlink_to(Path("..") / path.relative_to(target))
    for name in PLUGINS:
        plugin = library.parent / "gstreamer-1.0" / f"libgst{name}.so"
        (target / "plugins" / plugin.name).symlink_to(Path("..") / plugin.relative_to(target))


if __name__ == "__main__":
    print(fetch())
