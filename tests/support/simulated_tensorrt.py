"""TensorRT where its libraries are not: the real bindings, over stub libraries that only let them be imported."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from capabilities import fetched, missing
from fetch_tensorrt_bindings import NEWEST, VERSIONS

STUBS = Path(__file__).with_name("stub_tensorrt")


# Runs a test on each of the TensorRT versions whose bindings are fetched; other tests run on the newest.
each_tensorrt = pytest.mark.parametrize("tensorrt_version", VERSIONS, indirect=True, scope="session")


@pytest.fixture(scope="session")
def tensorrt_version(request: pytest.FixtureRequest) -> str:
    """Version of the bindings: the newest, or see `each_tensorrt`."""
    return str(getattr(request, "param", NEWEST))


@pytest.fixture(scope="session")
def tensorrt_bindings(tensorrt_version: str) -> Path:
    """Folder that makes ``tensorrt_bindings`` importable in a child process."""
    return fetched("fetch_tensorrt_bindings.py", "tensorrt-bindings", tensorrt_version)


@pytest.fixture(scope="session")
def tensorrt_libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of stub libraries, with the drivers of a machine with one GPU and with none in ``gpu`` and ``none``."""
    if shutil.which("gcc") is None:
        missing("tensorrt-bindings", "gcc is not installed")
    folder = tmp_path_factory.mktemp("libraries")
    majors = sorted({version.split(".")[0] for version in VERSIONS})
    names = [f"lib{name}.so.{major}" for name in ("nvinfer", "nvonnxparser", "nvinfer_plugin") for major in majors]
    jobs = [(folder / name, "nvinfer.c", "") for name in names]
    for devices, kind in enumerate(("none", "gpu")):
        (folder / kind).mkdir()
        jobs.append((folder / kind / "libcuda.so.1", "cuda.c", f"-DNUM_DEVICES={devices}"))
    for path, source, define in jobs:
        options = ["-shared", "-fPIC", f"-Wl,-soname,{path.name}", "-o", str(path), str(STUBS / source)]
        subprocess.run(["gcc", *filter(None, [define]), *options], check=True)
    return folder


def dotted_names(sources: Iterable[Path], root: str) -> set[str]:
    """Every attribute chain on the name ``root`` in sources, as in trt.BuilderFlag.TF32, but for the version."""
    trees = [ast.parse(source.read_text()) for source in sources]
    nodes = (node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute))
    chains = {ast.unparse(node) for node in nodes}
    found = {m[1] for chain in chains if (m := re.search(rf"(?:^|\.)({root}(?:\.\w+)+)$", chain))}
    return found - {f"{root}.__version__"}


def assert_real_names(names: Iterable[str], environment: dict[str, str]) -> None:
    """Names such as trt.Runtime exist in the real bindings."""
    code = "import json, operator, sys, tensorrt_bindings as trt\n" + (
        "for n in json.load(sys.stdin): operator.attrgetter(n.partition('.')[2])(trt)"
    )
    command = [sys.executable, "-c", code]
    subprocess.run(command, input=json.dumps(sorted(names)), text=True, check=True, env=environment)
