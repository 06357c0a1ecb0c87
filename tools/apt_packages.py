"""Debian packages, unpacked without installing them.

apt uses a state folder of its own, so that the machine's package lists do not change.
"""

from __future__ import annotations

import platform
import re
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path


def codename() -> str:
    """Name of the machine's own suite, as in ``bookworm``."""
    return platform.freedesktop_os_release()["VERSION_CODENAME"]


@cache
def installed() -> frozenset[str]:
    """Names of the packages that this machine has."""
    command = ["dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status}\\n"]
    lines = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    return frozenset(line.split()[0] for line in lines if line.endswith(" installed"))


class Apt:
    """apt-get with package lists of its own.

    Args:
        home: an empty folder for what it keeps.
        suites: whose packages are known.
    """

    def __init__(self, home: Path, *suites: str) -> None:
        self._home = home
        for name in ("lists/partial", "parts", "cache/archives/partial", "packages"):
            (home / name).mkdir(parents=True)
        found = self._run("indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages").splitlines()
        (site,) = {line.split()[0] for line in found if line.split()[1] == codename()}
        lines = [f"deb {site} {suite} main\n" for suite in dict.fromkeys(suites)]
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

    def unpack_all(self, packages: Sequence[str], target: Path) -> None:
        """Do the same for several, with one call of apt-get, which takes seconds."""
        target.mkdir(parents=True, exist_ok=True)
        self._run("download", *packages, *self._options)
        for package in packages:
            subprocess.run(["dpkg", "-x", self._archive(package.partition("/")[0]), target], check=True)

    def library_of(self, package: str) -> str:
        """Name of the first package that an unpacked one depends on."""
        command = ["dpkg-deb", "--field", str(self._archive(package)), "Depends"]
        depends = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return re.split(r"[ ,(]", depends)[0]

    def lacking(self, package: str) -> list[str]:
        """Names of ``package`` and all that it needs, but for what this machine has."""
        nothing = "-oDir::State::status=/dev/null"  # a machine without packages, so none is in another's way
        found = self._run("install", "--simulate", "--no-install-recommends", package, nothing, *self._options)
        return [name for name in re.findall(r"^Inst (\S+)", found, re.MULTILINE) if name not in installed()]

    def _archive(self, package: str) -> Path:
        (archive,) = (self._home / "packages").glob(f"{package}_*.deb")
        return archive

    def _run(self, *arguments: str) -> str:
        command = ["apt-get", "-qq", *arguments]
        return subprocess.run(
            command, check=True, stdout=subprocess.PIPE, text=True, cwd=self._home / "packages"
        ).stdout
