"""Every command in the README and the pages of docs/ is run; the output that the README shows is compared in shape."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path

import project_file
import pytest
import scenic_trees
from hub_server import running_hub
from make_demo_clips import Format, encode_clip
from triton_server import Served

from vivit_export import demo
from vivit_export.bundle import read_bundle
from vivit_export.demo.motion import LABELS, render_clip

ROOT = Path(__file__).parents[2]
# The README comes first: its commands make the bundle that the other pages use.
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
README = PAGES[0].read_text(encoding="utf-8")
BIN = Path(sys.executable).parent


def blocks(language: str, pages: list[Path] = PAGES) -> list[str]:
    texts = (page.read_text(encoding="utf-8") for page in pages)
    found = (
        pair for text in texts for pair in re.findall(r"^```(\w*)[^\n]*\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    )
    return [block for said, block in found if said == language]


def commands(pages: list[Path]) -> list[str]:
    lines = (line for block in blocks("", pages) for line in block.splitlines())
    return [line.split("#")[0].strip() for line in lines if line.startswith(("vivit", "vivit-export"))]


COMMANDS = commands(PAGES)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the example paths exist; commands run in it one after the other."""
    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(demo.checkpoint_path(), folder / "path/to/checkpoint")
    shutil.copytree(demo.clips_path(), folder / "path/to/videos")
    make_many_videos(folder / "path/to/many/videos")
    make_keys(folder)
    make_scenic_checkpoint(folder / "path/to/scenic")
    return folder


def make_scenic_checkpoint(folder: Path) -> None:
    """A small factorised encoder, and names for its logits."""
    folder.mkdir(parents=True)
    tree = scenic_trees.tree_of(scenic_trees.flat_parameters("encoder"))
    (folder / "checkpoint").write_bytes(scenic_trees.flax_bytes({"optimizer": {"target": tree}}))
    (folder / "labels.txt").write_text("".join(f"name {i}\n" for i in range(scenic_trees.CLASSES)))


def make_keys(folder: Path) -> None:
    """As the page on signing says."""
    if shutil.which("openssl") is None:
        from made_keys import write_keys_of_the_page

        write_keys_of_the_page(folder)
        return
    for line in "".join(blocks("", [ROOT / "docs/signing.md"])).splitlines():
        if line.startswith("openssl"):
            done = run(shlex.split(line), folder)
            assert done.returncode == 0, done.stderr


def make_many_videos(folder: Path) -> None:
    """As few as a calibration takes, by the tool that makes the demo's."""
    folder.mkdir(parents=True)
    form = Format(96, 72, Fraction(25), 0.4)
    for i in range(32):
        frames = render_clip(LABELS[i % 8], seed=3_100_000_000 + i, num_frames=10, height=72, width=96)
        encode_clip(folder / f"{i}.mp4", frames, form)


@pytest.fixture(scope="module")
def hub_variables(workplace: Path) -> Iterator[dict[str, str]]:
    """Environment variables of who publishes on a hub; a local one here."""
    with running_hub() as hub:
        yield hub.variables(str(workplace / "hf"))


def run(
    command: list[str], cwd: Path, more: Mapping[str, str] | None = None, programs: Path = BIN
) -> subprocess.CompletedProcess[str]:
    outer = ("MAKE", "MFLAGS", "PYTEST_")  # `make test` runs us: ours shall not know
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(outer)}
    environment = {
        **inherited,
        "PATH": os.pathsep.join(map(str, (programs, BIN, os.environ["PATH"]))),
        "HF_HUB_OFFLINE": "1",
    }
    environment |= more or {}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=300)


def shape_of(output: str) -> list[str]:
    """Output without its figures: numbers, versions and times change, words do not."""
    lines = [re.sub(r"[\d.]+(?:e-?\d+)?(?:\+\w+)?", "N", line).rstrip() for line in output.strip().splitlines()]
    return [re.sub(r"\s+", " ", line) for line in lines]


def test_the_pages_have_commands() -> None:
    assert len(COMMANDS) >= 16


@pytest.mark.needs_rtx
@pytest.mark.parametrize("command", COMMANDS)
def test_command_works(command: str, workplace: Path, hub_variables: dict[str, str], preloaded: Path) -> None:
    """The README's own commands as a user runs them, those of the pages in processes that have loaded everything."""
    if command in commands(PAGES[:1]):
        done = run(shlex.split(command), workplace)
    elif "hf://" in command or command.startswith("vivit push"):
        done = run(shlex.split(command), workplace, hub_variables)
    else:
        done = run(shlex.split(command), workplace, programs=preloaded)
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.needs_onnxruntime
@pytest.mark.parametrize("command", [line.split("#")[0].strip() for line in "".join(blocks("sh")).splitlines()])
def test_command_works_on_a_server(command: str, served: Served, workplace: Path) -> None:
    assert "triton://localhost:8001/demo" in command
    here = {"localhost:8001": f"127.0.0.1:{served.server.grpc}", "out/rtx4090": str(served.bundle.path)}
    for shown, real in here.items():
        command = command.replace(shown, real)
    done = run(shlex.split(command), workplace)
    assert done.returncode == 0, done.stderr
    assert done.stdout and f"127.0.0.1:{served.server.grpc}" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("example", "printed"),
    [*zip(blocks("python"), ["8 ('left'", "<Bundle out/surface: demo in fp16, no engine>\n", "[('"], strict=True)],
    ids=["README", "python", "cameras"],
)
def test_python_example_works(workplace: Path, example: str, printed: str, preloaded: Path) -> None:
    python = sys.executable if example in README else str(preloaded / "python")
    done = run([python, "-c", example], workplace)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(printed)


def test_extras_that_are_named_exist() -> None:
    named = {extra for group in re.findall(r'"vivit-export\[(.*?)\]"', README) for extra in group.split(",")} | {"gpu"}
    project = project_file.project()
    assert named <= set(project["optional-dependencies"])


def test_the_cpp_example_is_the_one_that_is_built() -> None:
    assert blocks("cpp") == [(ROOT / "tests/cpp/consumer/main.cpp").read_text(encoding="utf-8")]


@pytest.mark.parametrize(
    "page",
    [
        *PAGES,
        *sorted((ROOT / "docs/tutorials").glob("*.md")),
        *(ROOT / f"{n}.md" for n in ("CONTRIBUTING", "SECURITY")),
    ],
    ids=lambda page: page.name,
)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


# --- make --------------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the settings of this repository, and with this Python as the environment that `make venv` made."""
    for name in ("pyproject.toml", "constraints.txt", "constraints-locked.txt"):
        shutil.copy(ROOT / name, tmp_path)
    environment = tmp_path / ".venv"
    environment.mkdir()
    for path in BIN.parent.iterdir():
        if path.name in ("bin", "lib", "lib64", "pyvenv.cfg"):
            (environment / path.name).symlink_to(path)
    (environment / ".ready").touch()
    return tmp_path


def make(target: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run this repository's Makefile in another folder."""
    return run(["make", "--no-print-directory", "--silent", "--file", str(ROOT / "Makefile"), target], folder)


@pytest.mark.needs_rtx
def test_make_demo_prints_what_the_tour_shows_and_replaces_what_it_made_before(
    project: Path, demo_bundle: Path
) -> None:
    made = Path(shutil.copytree(demo_bundle, project / "out/vivit-demo-fp16"))
    done = make("demo", project)
    assert done.returncode == 0, done.stderr
    (shown,) = blocks("text", [ROOT / "docs/tour.md"])
    assert shape_of(done.stdout) == shape_of(shown)
    bundle = read_bundle(made)
    assert bundle.precision == "fp16" and len(bundle.engines) == 1


RECORD = """
import os
import pytest

@pytest.mark.parametrize("number", range({count}))
def test_it(number):
    with open({record!r}, "a") as record:
        record.write(f"{{os.getpid()}} {index}\\n")
    {fate}
"""


def write_tests(project: Path, fates: dict[int, str] | None = None) -> list[int]:
    """Every test file of this repository by name, with tests that say in which process they ran; how many each has."""
    names = sorted(path.relative_to(ROOT) for path in (ROOT / "tests").rglob("test_*.py"))
    counts = [1 + index // 20 for index in range(len(names))]  # the later, the more: not to be drawn to the front
    for index, (name, count) in enumerate(zip(names, counts, strict=True)):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        facts = {"count": count, "record": str(project / "record"), "index": index}
        (project / name).write_text(RECORD.format(**facts, fate=(fates or {}).get(index, "")))
    return counts


def test_make_test_runs_all_tests_each_file_in_one_process_and_in_order(project: Path) -> None:
    counts = write_tests(project)
    done = make("test", project)
    assert done.returncode == 0, done.stdout
    assert f"{sum(counts)} passed" in done.stdout and " skipped" not in done.stdout
    ran: dict[str, list[int]] = {}
    for line in (project / "record").read_text().splitlines():
        process, index = line.split()
        ran.setdefault(process, []).append(int(index))
    assert sorted(index for indices in ran.values() for index in set(indices)) == list(range(len(counts)))
    assert all(indices == sorted(indices) for indices in ran.values())
    assert len(ran) <= 4 and (len(ran) > 1 or os.cpu_count() == 1)


@pytest.mark.parametrize(
    ("fate", "said"), [("assert number < 0", "1 failed"), ("os._exit(0)", "crashed while running")]
)
def test_make_test_fails_with_one_test_and_ends_where_a_process_dies(project: Path, fate: str, said: str) -> None:
    write_tests(project, {3: fate})
    done = make("test", project)
    assert done.returncode != 0
    assert said in done.stdout, done.stdout
