"""What is installed, what this machine can do, and how to get what is missing.

Packages are tried in processes of their own: a driver that does not fit can crash the one that asks.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from vivit_export import __version__
from vivit_export.bundle import Bundle
from vivit_export.cores import usable_cores
from vivit_export.errors import EnvironmentFault, VivitExportError, counted
from vivit_export.export.engine.compile import unavailable_reason
from vivit_export.flavour import Flavour
from vivit_export.packages import EXPORT, EXTRAS, how_to_install, is_older, is_there, missing_package, naming_the_extra
from vivit_export.printing import one_line
from vivit_export.records import JsonObject, to_json
from vivit_export.runtime.bench.nvidia_smi import gpu_model
from vivit_export.runtime.select import ORDER, open_session
from vivit_export.runtime.session.device import VNNI, cpu

_SECONDS = 120
_IMPORT = "import"
_INSTRUCTIONS = {"VNNI": VNNI, "bf16": ("avx512_bf16", "amx_bf16"), "AMX": ("amx_tile",)}


@dataclass(frozen=True, slots=True)
class Ability:
    """One thing that a machine may be able to do.

    Attributes:
        what: for people.
        reason: why not, and the remedy; None: it can.
        by: what does it, with versions.
    """

    what: str
    reason: str | None
    by: str = ""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was found.

    Attributes:
        machine: facts about it, by name.
        packages: version of each package that this one can use; empty: it is not installed.
        outdated: packages that are older than what is needed, and what that is.
        abilities: what it can do.
        engines: what can run a bundle here, if one was given.
    """

    machine: dict[str, str]
    packages: dict[str, str]
    outdated: dict[str, str]
    abilities: tuple[Ability, ...]
    engines: tuple[Ability, ...] = ()

    def to_json(self) -> JsonObject:
        """Return JSON types."""
        return dict(to_json(self))

    def __str__(self) -> str:
        installed = [f"{name} {version}" for name, version in self.packages.items() if version]
        rows = [(name, text) for name, text in self.machine.items()]
        rows += [("packages", ", ".join(installed))]
        rows += [("too old", f"{name} {self.packages[name]}: {told}") for name, told in self.outdated.items()]
        lines = [f"vivit-export {__version__}", *(f"  {name:<10} {one_line(text)}" for name, text in rows)]
        for title, abilities in (("This machine can", self.abilities), ("This bundle runs on", self.engines)):
            if abilities:
                lines += ["", title, *map(_line, abilities)]
        return "\n".join(lines)


def _line(ability: Ability) -> str:
    state, told = ("yes", ability.by) if ability.reason is None else ("no", ability.reason)
    return f"  {state:<4} {ability.what:<46} {one_line(told)}".rstrip()


def diagnose(bundle: Bundle | None = None) -> Diagnosis:
    """Look at this machine, and at what can run a bundle here.

    Args:
        bundle: open it with each engine, which runs a golden clip; None: none.
    """
    packages, outdated = _packages()
    return Diagnosis(
        _machine(), packages, outdated, tuple(_abilities(packages)), () if bundle is None else tuple(_engines(bundle))
    )


# --- the machine -------------------------------------------------------------------------------


def _machine() -> dict[str, str]:
    facts = {
        "python": f"{platform.python_version()}, {platform.system()} {platform.release()}, {platform.machine()}",
        "processor": f"{cpu().name}, {usable_cores()} of {counted(os.cpu_count() or 1, 'cores')}, {_instructions()}",
        "memory": _memory(),
        "GPU": gpu_model() or "none that nvidia-smi lists",
        "disk": f"{_free(Path())} free here, {_free(Path(tempfile.gettempdir()))} for temporary files",
    }
    settings = sorted(name for name in os.environ if name.startswith("VIVIT_"))
    return {**facts, **({"settings": ", ".join(settings)} if settings else {})}


def _instructions() -> str:
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return "instructions unknown"
    found = [name for name, names in _INSTRUCTIONS.items() if any(re.search(rf"\b{one}\b", flags) for one in names)]
    return f"with {', '.join(found)}" if found else "without VNNI and bf16"


def _memory() -> str:
    try:
        facts = dict(re.findall(r"^(\w+):\s+(\d+) kB", Path("/proc/meminfo").read_text(encoding="ascii"), re.MULTILINE))
        return f"{int(facts['MemTotal']) / 1e6:.1f} GB, {int(facts['MemAvailable']) / 1e6:.1f} GB of them free"
    except (OSError, KeyError):
        return "unknown"


def _free(folder: Path) -> str:
    try:
        return f"{shutil.disk_usage(folder).free / 1e9:.1f} GB"
    except OSError as e:
        return f"unknown ({e.strerror})"


def _packages() -> tuple[dict[str, str], dict[str, str]]:
    """The version of each package that our own metadata names, but for those of the tests; and what is too old."""
    versions: dict[str, str] = {}
    outdated = {}
    for line in importlib.metadata.requires("vivit-export") or []:
        requirement, _, condition = line.partition(";")
        found = re.match(r"[\w.-]+", requirement)
        if found is None or re.search(r"extra == .(dev|docs).", condition) or "python_version <" in condition:
            continue
        name = found[0]
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = ""
            continue
        lowest = re.search(r">=([\d.]+)", requirement)
        if lowest and is_older(versions[name], lowest[1]):
            outdated[name] = f"{lowest[1]} or newer is needed; pip install --upgrade {name}"
    return dict(sorted(versions.items())), outdated


# --- what it can do ----------------------------------------------------------------------------


def _abilities(packages: dict[str, str]) -> Iterator[Ability]:
    def by(*names: str) -> str:
        return ", ".join(f"{name} {packages[name]}" for name in names if packages.get(name))

    # transformers imports a network when it is needed, which our own modules do.
    export = [*(module for module, extra in EXTRAS.items() if extra == EXPORT), "vivit_export.export.pipeline"]
    tries: list[tuple[str, Callable[[], str | None], str]] = [
        ("export checkpoints", lambda: _lacking(*export), by("torch", "transformers")),
        ("run on the CPU with ONNX Runtime, and check", lambda: _tried("onnxruntime-cpu"), by(*_ORT)),
        ("run on the CPU with OpenVINO", lambda: _tried("openvino"), by("openvino")),
        ("run on a GPU with ONNX Runtime", lambda: _tried("onnxruntime-cuda"), by("onnxruntime-gpu")),
    ]
    unavailable = {flavour: unavailable_reason(flavour) for flavour in Flavour}  # once: two of the tries ask
    for flavour, reason in unavailable.items():
        tries.append((f"build {flavour.product} engines", partial(unavailable.get, flavour), by(str(flavour))))
        tries.append((f"run {flavour.product} engines", partial(_run_reason, reason, flavour), by(str(flavour))))
    tries += [
        ("ask a Triton server", lambda: _lacking_extra("triton", "tritonclient.grpc"), by("tritonclient")),
        ("run data sets on Ray", lambda: _lacking("ray", "pyarrow"), by("ray")),
        ("sign bundles, and require signatures", lambda: _lacking("cryptography"), by("cryptography")),
        ("share bundles on the Hugging Face Hub", lambda: _lacking("huggingface_hub"), by("huggingface-hub")),
        ("write reports as pages", lambda: _lacking("jinja2"), by("jinja2")),
        ("build the C++ library", _no_tools, ""),
    ]
    with ThreadPoolExecutor(usable_cores()) as pool:  # each waits for a process
        reasons = pool.map(lambda row: row[1](), tries)
        for (what, _, package), reason in zip(tries, reasons, strict=True):
            yield Ability(what, reason, package)


_ORT = ("onnxruntime", "onnxruntime-gpu")


def _run_reason(reason: str | None, flavour: Flavour) -> str | None:
    return reason or _tried(flavour)


def _no_tools() -> str | None:
    tools = [tool for tool in ("cmake", "c++") if shutil.which(tool) is None]
    return f"{' and '.join(tools)} not found; install them" if tools else None


def _lacking(*modules: str) -> str | None:
    absent = next((module for module in modules if not is_there(module)), None)
    return _tried(_IMPORT, *modules) if absent is None else str(missing_package(absent))


def _lacking_extra(extra: str, module: str) -> str | None:
    package = module.partition(".")[0]
    if is_there(package):
        return _tried(_IMPORT, module)
    return f"{package} is not installed; install it with: {how_to_install(extra)}"


def _tried(*what: str) -> str | None:
    """Return why something cannot be used here, as a process finds out that is asked to use it; None: it can.

    Args:
        what: the engine, or `_IMPORT` and modules.
    """
    command = [sys.executable, "-m", "vivit_export.doctor", *what]
    with tempfile.TemporaryDirectory() as empty:  # nothing there can be taken for a module
        try:
            done = subprocess.run(
                command,
                cwd=empty,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"its library did not answer in {_SECONDS} s"
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        return f"its library ended the process that tried it ({last})"
    answer: str | None = json.loads(done.stdout.splitlines()[-1])
    return answer


def _engines(bundle: Bundle) -> Iterator[Ability]:
    for name in ORDER:
        try:
            with open_session(bundle, name) as session:
                yield Ability(name, None, f"{session.details}; {session.self_test}")
        except VivitExportError as e:
            yield Ability(name, str(e))


# --- in a process of its own -------------------------------------------------------------------


def _try_onnxruntime(cuda: bool) -> None:
    from onnx import TensorProto, helper

    from vivit_export.runtime.session.onnxruntime import OnnxRuntimeSession

    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    session = OnnxRuntimeSession(model.SerializeToString(), gpu_if_there=cuda)
    if cuda and not session.name.endswith("cuda"):
        raise EnvironmentFault(
            "this ONNX Runtime has no CUDA, or finds no GPU or not all of CUDA's libraries; replace it with: "
            'pip uninstall onnxruntime; pip install "vivit-export[gpu]"'
        )


def _try_openvino() -> None:
    from vivit_export.runtime.session.openvino import require_openvino

    require_openvino()


def _try_tensorrt(flavour: Flavour) -> None:
    from vivit_export.runtime.session.cuda import Cuda

    Cuda(0, flavour.extra)


_TRIES: dict[str, Callable[[], None]] = {
    "onnxruntime-cpu": lambda: _try_onnxruntime(False),
    "onnxruntime-cuda": lambda: _try_onnxruntime(True),
    "openvino": _try_openvino,
    **{flavour: partial(_try_tensorrt, flavour) for flavour in Flavour},
}


def _main(engine: str, *modules: str) -> None:
    reason = None
    try:
        if engine == _IMPORT:
            with naming_the_extra():
                for module in modules:
                    importlib.import_module(module)
        else:
            _TRIES[engine]()
    except VivitExportError as e:
        reason = str(e)
    sys.stdout.write(json.dumps(reason) + "\n")


if __name__ == "__main__":
    _main(*sys.argv[1:])
