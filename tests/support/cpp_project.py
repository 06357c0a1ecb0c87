"""The C++ project as its tests have it: built once for a whole run, and asked through ``tests/cpp/probe.cpp``.

The fixtures are in ``tests/integration/cpp/conftest.py``.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from capabilities import fetched

TESTS = Path(__file__).parents[1] / "cpp"
BUILD_SECONDS = 1800  # on a machine that is busy with other things; alone it takes one or two minutes
WARNINGS = ("-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wconversion", "-Werror")
Request = dict[str, Any]


def run(*command: str | Path, timeout: float = 300, **options: Any) -> str:
    """Run a program that must succeed; return what it prints."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, **options)
    assert done.returncode == 0, f"{command}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return str(done.stdout)


def onnxruntime_release(root: Path, usr: Path) -> Path:
    """Make a folder like an unpacked release of ONNX Runtime: Debian's headers and the wheel's own library."""
    spec = importlib.util.find_spec("onnxruntime")
    assert spec is not None and spec.origin is not None
    (library,) = Path(spec.origin).parent.glob("capi/libonnxruntime.so.1*")
    (root / "lib").mkdir(parents=True)
    (root / "lib/libonnxruntime.so.1").symlink_to(library)
    (root / "lib/libonnxruntime.so").symlink_to("libonnxruntime.so.1")
    (root / "include").symlink_to(usr / "include/onnxruntime")
    return root


@dataclass(frozen=True)
class Libraries:
    """What the C++ code is compiled against; nothing of it was installed.

    Attributes:
        usr: headers of nlohmann/json, OpenSSL, doctest, ONNX Runtime and FFmpeg.
        onnxruntime: a folder like an unpacked release of ONNX Runtime.
    """

    usr: Path
    onnxruntime: Path

    def cmake(self, *prefixes: Path) -> list[str]:
        """What CMake must be told to find them, and packages that were installed to ``prefixes``."""
        found = ";".join(map(str, (self.usr, *prefixes)))
        return [f"-DCMAKE_PREFIX_PATH={found}", f"-DONNXRUNTIME_ROOT={self.onnxruntime}"]

    def includes(self) -> list[str]:
        """What a compiler must be told."""
        (ffmpeg,) = {path.parent.parent for path in self.usr.glob("include/**/libavformat/avformat.h")}
        openssl = {path.parent.parent for path in self.usr.glob("include/*/openssl/opensslconf.h")}
        folders = [self.usr / "include", *sorted(openssl), self.onnxruntime / "include", ffmpeg]
        return [word for folder in dict.fromkeys(folders) for word in ("-isystem", str(folder))]


@dataclass(frozen=True)
class Cpp:
    """What was built.

    Attributes:
        home: holds the builds; not to be modified.
        bundle: the demo in fp32, as it was deployed.
        video: all frames of a demo clip, as .npy; .rgb beside it, and noise as .y4m.
        vivit_run: the example program.
        probe: the test program.
    """

    home: Path

    @property
    def bundle(self) -> Path:
        return self.home / "project/bundle"

    @property
    def video(self) -> Path:
        return self.home / "video/up.npy"

    @property
    def vivit_run(self) -> Path:
        return self.home / "build/vivit-run"

    @property
    def probe(self) -> Path:
        return self.home / "tests/probe"

    def ask(self, requests: list[Request], loops: str = "portable") -> list[Any]:
        """Let the probe answer requests in one process, with the loops for any processor or for this one."""
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump([{"loops": loops, **request} for request in requests], file)
            file.flush()
            answers = [json.loads(line) for line in run(self.probe, file.name).splitlines()]
        assert len(answers) == len(requests)
        return answers


@dataclass(frozen=True)
class Libav:
    """What was built with FFmpeg's libraries.

    Attributes:
        vivit_run: the example program.
        frames: the test program, tests/cpp/libav.
        env: with which they find the libraries.
    """

    vivit_run: Path
    frames: Path
    env: dict[str, str]

    def ask(self, requests: list[Request]) -> list[Any]:
        """Let the test program answer requests in one process."""
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(requests, file)
            file.flush()
            answers = [json.loads(line) for line in self._run(file.name).splitlines()]
        assert len(answers) == len(requests)
        return answers

    def _run(self, requests: str) -> str:
        return run(self.frames, requests, env=self.env, timeout=BUILD_SECONDS)


def hashes_of(frames: Iterable[np.ndarray]) -> list[str]:
    """The SHA-256 of each frame, as the test program of `Libav` gives it."""
    return [hashlib.sha256(frame.tobytes()).hexdigest() for frame in frames]


def find_clang() -> list[str | Path]:
    """How clang++ is called: this machine's, or one that is fetched; a test is skipped for want of ``clang``."""
    for name in ("clang++", *(f"clang++-{version}" for version in range(25, 11, -1))):
        if shutil.which(name):
            return [name]
    folder = fetched("fetch_clang.py", "clang")
    (program,) = folder.glob("usr/lib/llvm-*/bin/clang++")
    libraries = {path.parent for path in folder.glob("usr/lib/**/*.so*")}
    return ["env", f"LD_LIBRARY_PATH={':'.join(map(str, sorted(libraries)))}", program]


def write_y4m(path: Path, width: int, height: int, space: str, seed: int, header: str = "", count: int = 3) -> None:
    """Write frames of noise."""
    across, down = {"420": (2, 2), "422": (2, 1), "444": (1, 1), "mon": (0, 0)}[space[:3]]
    chroma = (width // across) * (height // down) if across else 0
    rng = np.random.default_rng(seed)
    with path.open("wb") as file:
        file.write(f"YUV4MPEG2 W{width} H{height} F25:1 Ip A1:1 C{space}{header}\n".encode())
        for _ in range(count):
            file.write(b"FRAME Ip\n" + rng.integers(0, 256, width * height + 2 * chroma, dtype=np.uint8).tobytes())


def flip_a_byte(folder: Path, _manifest: dict[str, Any]) -> None:
    """Alter the model of a bundle."""
    data = bytearray((folder / "model.onnx").read_bytes())
    data[1000] ^= 1
    (folder / "model.onnx").write_bytes(data)
