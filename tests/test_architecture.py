"""The rules of the design that a reader relies on: who imports whom, what is heavy, how long things are."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import vivit_export
from vivit_export.flavour import Flavour
from vivit_export.precision import Precision

PACKAGE = Path(vivit_export.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
TESTS = Path(__file__).parent
TEST_FILES = sorted(TESTS.rglob("test_*.py"))

# A room imports from itself and from rooms further up this list, nothing else.
ROOMS = (
    "errors",
    "limits",
    "printing",
    "cores",
    "packages",
    "lazy",
    "records",
    "choices",
    "signals",
    "progress",
    "contract",
    "anatomy",
    "precision",
    "rewrite",
    "flavour",
    "atomic",
    "leftovers",
    "files",
    "arguments",
    "hub",
    "folders",
    "locking",
    "demo",
    "families",
    "bundle",
    "runtime",
    "calibration",
    "deploy",
    "report",
    "sharing",
    "export",
    "datasets",
    "doctor",
    "cli",
    "pytest_plugin",
)

# Cheap to import, or at work wherever a graph is rewritten. Everything else from outside has one home.
EVERYDAY = {"numpy", "ml_dtypes", "PIL", "safetensors", "onnx", "onnx_ir", "onnxscript"}
HOMES = {
    "torch": {
        *(f"export/checkpoint/{n}.py" for n in ("device", "load", "low_precision", "weights")),
        *(f"export/checkpoint/{n}.py" for n in ("same_network", "tapped_network", "timed_network")),
        *(f"families/networks/{n}.py" for n in ("network", "timesformer", "videomae", "vivit_factorised", "vjepa2")),
        "families/networks/vivit_factorised_modeling.py",
        "export/graph/trace.py",
    },
    "transformers": {
        "export/checkpoint/load.py",
        *(f"families/networks/{n}.py" for n in ("network", "timesformer", "vivit", "vjepa2")),
        "families/networks/vivit_factorised_modeling.py",
    },
    "huggingface_hub": {"export/checkpoint/files.py", "hub.py", "sharing.py"},
    "av": {
        *(f"runtime/clips/video/{n}.py" for n in ("clock", "container", "index", "picture", "seek")),
        "runtime/clips/live/connection.py",
    },
    "polygraphy": {"export/engine/worker.py"},
    "onnxruntime": {"runtime/session/onnxruntime.py"},
    "tritonclient": {"runtime/session/triton/connection.py"},
    "aiohttp": {"runtime/session/triton/connection.py"},
    "ray": {"datasets/cluster.py"},
    "pyarrow": {"datasets/tables.py"},
    "click": {
        f"cli/{n}.py"
        for n in (
            "__init__",
            "bench",
            "card",
            "check",
            "cluster",
            "color",
            "command",
            "completion",
            "config",
            "convert",
            "deploy",
            "doctor",
            "export",
            "help",
            "hub",
            "live",
            "log",
            "options",
            "show",
            "sign",
            "spans",
            "use",
            "values",
        )
    },
    "rich": {"progress.py"},
    "jinja2": {"report/templating.py"},
    "cryptography": {"bundle/signatures/certificates.py", "bundle/signatures/keys.py"},
}

MOST_MODULE_LINES = 400
MOST_BODY_LINES = 45

# Folders of tests whose files are named after what they test. integration/ and support/ mirror nothing, nor does
# examples/, which holds no Python.
MIRRORS = {"benchmarks": PACKAGE.parent / "benchmarks", "tools": PACKAGE.parent / "tools"} | {
    room: PACKAGE / room
    for room in ("bundle", "calibration", "datasets", "demo", "deploy", "export", "families", "report", "runtime")
}


def name(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def name_of_test(path: Path) -> str:
    return path.relative_to(TESTS).as_posix()


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports(path: Path) -> set[str]:
    """Dotted names of all modules imported, inside functions and for type checkers too."""
    found: set[str] = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name(path)} imports relatively"
            assert node.module is not None
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in DOTTED:
            found.add(node.value)  # for import_module, python -m, or a child process
    return found


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


DOTTED = {dotted(path): path for path in MODULES}
# Each loads its public names on first use, from anywhere below it.
LAZY = {PACKAGE / "__init__.py", PACKAGE / "runtime/__init__.py"}


def own_modules_used(path: Path) -> set[Path]:
    """Modules of the package that a module imports, by name string too."""
    found = set()
    for used in imports(path):
        while used and used not in DOTTED:
            used = used.rpartition(".")[0]
        if used:
            found.add(DOTTED[used])
    return found


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def rooms_used(path: Path) -> set[str]:
    names = (n.split(".") for n in imports(path) if n.startswith("vivit_export."))
    return {parts[1] for parts in names} - {"__version__"}


def outside_packages(path: Path) -> set[str]:
    return {n.split(".")[0] for n in imports(path)} - sys.stdlib_module_names - {"vivit_export"}


@pytest.mark.parametrize("path", [p for p in MODULES if p.parent != PACKAGE or p.name != "__init__.py"], ids=name)
def test_imports_point_one_way(path: Path) -> None:
    allowed = ROOMS[: ROOMS.index(room(path)) + 1]
    assert rooms_used(path) <= set(allowed)


def test_no_circle_between_folders() -> None:
    """A folder's own modules count as that folder's, those of a folder in it as the inner folder's."""
    uses: dict[Path, set[Path]] = {}
    for path in MODULES:
        if path not in LAZY:
            folders = {used.parent for used in own_modules_used(path) if used not in LAZY}
            uses.setdefault(path.parent, set()).update(folders - {path.parent, PACKAGE})
    try:
        tuple(TopologicalSorter(uses).static_order())
    except CycleError as e:
        pytest.fail(" -> ".join(folder.relative_to(PACKAGE).as_posix() for folder in e.args[1]))


def test_imports_by_name_are_seen() -> None:
    assert {name(p) for p in own_modules_used(PACKAGE / "export/bench.py")} >= {"export/eager_worker.py"}


def test_every_heavy_dependency_has_one_home() -> None:
    users: dict[str, set[str]] = {}
    for path in MODULES:
        for package in outside_packages(path):
            users.setdefault(package, set()).add(name(path))
    assert {package: users.get(package) for package in HOMES} == HOMES
    strays = {p: u for p, u in users.items() if p not in HOMES and p not in EVERYDAY and len(u) > 1}
    assert not strays, "give each of these one home"


@pytest.mark.parametrize("heavy", ["torch", "transformers", "onnxscript", "polygraphy"])
def test_the_runtime_needs_nothing_of_the_export(heavy: str) -> None:
    users = {name(p) for p in MODULES if room(p) != "export" and heavy in outside_packages(p)}
    assert all(user.startswith("families/networks/") for user in users)


def test_the_half_of_the_families_with_torch_is_for_the_export_alone() -> None:
    networks = "vivit_export.families.networks"
    users = {name(path) for path in MODULES if any(used.startswith(networks) for used in imports(path))}
    assert all(user.startswith(("export/", "families/networks/")) for user in users)


def test_every_outside_package_is_declared() -> None:
    project = (PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8")
    spelled = {"PIL": "pillow"}
    used = set().union(*map(outside_packages, MODULES))
    missing = {p for p in used if f'"{spelled.get(p, p).replace("_", "-")}' not in project}
    assert not missing


def strings_compared(path: Path) -> set[str]:
    """Strings that a module compares something with, or looks for in a tuple or list that it spells out."""
    compares = (node for node in ast.walk(parsed(path)) if isinstance(node, ast.Compare))
    parts = (part for node in compares for side in (node.left, *node.comparators) for part in ast.walk(side))
    return {part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str)}


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_precisions_and_flavours_are_never_compared_as_strings(path: Path) -> None:
    """They are records: what a comparison would decide is an attribute of them."""
    records = {*map(str, Precision), *map(str, Flavour)}
    allowed = {"tensorrt"} if room(path) == "deploy" else set()  # there it is the name of one of Triton's back ends
    assert strings_compared(path) & records <= allowed


def test_addresses_of_live_video_are_opened_for_who_typed_them_alone() -> None:
    """Neither what serves videos to others nor what reads files knows how."""
    live = ("vivit_export.runtime.clips.live", "vivit_export.runtime.stream")
    users = {name(path) for path in MODULES if any(used.startswith(live) for used in imports(path))}
    outside = {user for user in users if not user.startswith(("cli/", "runtime/clips/live/"))}
    assert outside == {"__init__.py", "runtime/stream.py", "report/text.py"}


def test_dicts_of_anything_stay_at_the_json_boundary() -> None:
    """`JsonObject` says that something is JSON; all else has a type of its own."""
    users = {name(path) for path in MODULES if "dict[str, Any]" in path.read_text(encoding="utf-8")}
    assert users == {
        "records.py",  # which reads and writes it
        "runtime/clips/video/picture.py",  # keyword arguments of PyAV
        "runtime/session/triton/address.py",  # of an address
        "export/engine/drawing.py",  # attributes of an ONNX node
    }


# --- what is loaded when -----------------------------------------------------------------------


def run(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("vivit_export", "torch transformers numpy onnx onnx_ir onnxruntime av PIL click rich polygraphy"),
        ("vivit_export.cli", "torch transformers numpy onnx onnx_ir onnxruntime av PIL rich polygraphy"),
        ("vivit_export.bundle", "torch transformers numpy onnx onnx_ir onnxruntime av PIL click rich polygraphy"),
        ("vivit_export.export.options", "torch transformers onnx onnx_ir onnxruntime av click rich polygraphy"),
        ("vivit_export.export.build", "torch transformers onnx onnx_ir onnxruntime av click rich polygraphy"),
    ],
)
def test_importing_a_module_loads_nothing_heavy(module: str, heavy: str) -> None:
    run(
        f"""
        import sys
        import {module}
        loaded = set("{heavy}".split()) & set(sys.modules)
        assert not loaded, loaded
        """
    )


def test_every_public_name_exists() -> None:
    assert set(vivit_export.__all__) <= set(dir(vivit_export))
    for public in vivit_export.__all__:
        assert getattr(vivit_export, public) is not None
    with pytest.raises(AttributeError, match="'vivit_export' has no attribute 'nonsense'"):
        _ = vivit_export.nonsense


def test_every_module_can_be_imported_by_itself() -> None:
    for module, path in DOTTED.items():
        if room(path) != "datasets" or importlib.util.find_spec("pyarrow"):  # tests/datasets says if it is promised
            importlib.import_module(module)


# --- readability -------------------------------------------------------------------------------

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def definitions(tree: ast.Module) -> Iterator[Definition]:
    yield from (node for node in ast.walk(tree) if isinstance(node, Definition))


def public_definitions(tree: ast.Module) -> Iterator[Definition]:
    """Classes and functions of a module, and the methods of its public classes, but no signature of an overload."""
    for node in tree.body:
        if isinstance(node, Definition) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                inside = (n for n in node.body if isinstance(n, Definition) and not n.name.startswith("_"))
                yield from (n for n in inside if "overload" not in map(ast.unparse, n.decorator_list))


def body_lines(node: Definition) -> int:
    """Lines of a function without its signature, which may name many options, and its docstring."""
    statements = node.body[1:] if ast.get_docstring(node) is not None else node.body
    if not statements or node.end_lineno is None:
        return 0
    return node.end_lineno - statements[0].lineno + 1


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_a_module_can_be_read_in_one_sitting(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_MODULE_LINES
    functions = (node for node in definitions(parsed(path)) if not isinstance(node, ast.ClassDef))
    too_long = {node.name: body_lines(node) for node in functions if body_lines(node) > MOST_BODY_LINES}
    assert not too_long


@pytest.mark.parametrize("path", [p for p in MODULES if p.stat().st_size], ids=name)
def test_what_is_public_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(parsed(path)), "the module"
    silent = [node.name for node in public_definitions(parsed(path)) if not ast.get_docstring(node)]
    assert not silent


# --- tests -------------------------------------------------------------------------------------


def subjects(folder: Path) -> set[str]:
    """What tests in the mirror of a folder may be about: its modules, the folders in it, and itself."""
    modules = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    return modules | {path.name for path in folder.iterdir() if path.is_dir()} | {folder.name}


def is_named_after_something(path: Path) -> bool:
    """Whether a file is ``test_SUBJECT.py``, or ``test_SUBJECT_TOPIC.py``."""
    room, *inner = path.relative_to(TESTS).parent.parts
    folder = MIRRORS[room].joinpath(*inner)
    return folder.is_dir() and any(f"{path.stem}_".startswith(f"test_{subject}_") for subject in subjects(folder))


def is_short(path: Path) -> bool:
    return len(path.read_text(encoding="utf-8").splitlines()) <= MOST_MODULE_LINES


MIRRORING = [path for path in TEST_FILES if path.relative_to(TESTS).parts[0] in MIRRORS]


@pytest.mark.parametrize("path", MIRRORING, ids=name_of_test)
def test_tests_are_named_after_what_they_test(path: Path) -> None:
    assert is_named_after_something(path)


@pytest.mark.parametrize("path", [*TEST_FILES, *sorted(TESTS.glob("support/**/*.py"))], ids=name_of_test)
def test_a_file_of_tests_can_be_read_in_one_sitting(path: Path) -> None:
    assert is_short(path)
