"""Folders that move into a repository: killed at any step, the next run does the rest, and nothing is ever mixed."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from console import tree
from made_bundle import make_bundle
from noted import Noted
from triton_repository import deploy

from vivit_export import atomic
from vivit_export.deploy.triton.deploy import TritonOptions, deploy_triton
from vivit_export.deploy.triton.moving import finish_moves, move_in

OLD = ("m", "m-frames", "m-video")
NEW = ("m", "m-video")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A repository with a deployment of three folders, and a model of somebody else."""
    repository = tmp_path / "r"
    for name in (*OLD, "theirs"):
        (repository / name).mkdir(parents=True)
        (repository / name / "is").write_text("old" if name in OLD else "theirs")
    return repository


def made(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).mkdir(parents=True)
        (folder / name / "is").write_text("new")
    return folder


def state(place: Path) -> dict[str, str]:
    return {folder.name: (folder / "is").read_text() for folder in sorted(place.iterdir())}


def removed(said: str, place: Path) -> bool:
    """Whether a note says that something hidden was removed beside a repository, and nothing more."""
    hidden = re.escape(str(place.with_name(f".{place.name}.vivit-")))
    return bool(re.fullmatch(rf"removed {hidden}[0-9a-f]{{8}}\.moving, which an interrupted run had left", said))


BEFORE = {**dict.fromkeys(OLD, "old"), "theirs": "theirs"}
AFTER = {**dict.fromkeys(NEW, "new"), "theirs": "theirs"}


def in_a_child(run: Callable[[], object]) -> int:
    child = os.fork()
    if not child:
        try:
            run()
        finally:
            os._exit(1)  # it was to be killed
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def die_after(count: int, function: Callable[..., object]) -> Callable[..., object]:
    calls = iter(range(1, 100))

    def run(*arguments: object, **options: object) -> object:
        result = function(*arguments, **options)
        if next(calls) == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return run


@pytest.mark.parametrize("steps", range(1, 7))  # one folder aside, three go, two come
def test_a_run_that_was_killed_is_finished_by_the_next(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    work = made(tmp_path / ".r.vivit-00000000.part", *NEW)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", die_after(steps, Path.rename))
        assert in_a_child(lambda: move_in(work, place, OLD)) == -signal.SIGKILL
    between = state(place)
    assert between.items() <= BEFORE.items() or between.items() <= AFTER.items()
    told: list[str] = []
    finish_moves(place, told.append)
    committed = steps > 1
    assert state(place) == (AFTER if committed else BEFORE)
    finished = f"finished a deployment in {place}, in which an earlier run was interrupted"
    (said,) = told
    assert said == finished if committed else removed(said, place)
    assert os.listdir(tmp_path) == ["r"]
    finish_moves(place, pytest.fail)
    assert state(place) == (AFTER if committed else BEFORE)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_run_that_was_killed_while_it_removed_the_old_ones_is_done(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    """What is new must not be taken for what is old, and removed."""
    work = made(tmp_path / ".r.vivit-00000000.part", *NEW)
    with monkeypatch.context() as patch:
        patch.setattr(os, "rmdir", die_after(steps, os.rmdir))
        assert in_a_child(lambda: move_in(work, place, OLD)) == -signal.SIGKILL
    assert state(place) == AFTER
    told: list[str] = []
    finish_moves(place, told.append)
    (said,) = told
    assert removed(said, place)
    assert state(place) == AFTER
    assert os.listdir(tmp_path) == ["r"]


def test_what_came_meanwhile_is_not_replaced(place: Path, tmp_path: Path) -> None:
    moving = tmp_path / ".r.vivit-00000000.moving"
    made(moving / "new", "m", "m-video")
    (moving / "old/m").mkdir(parents=True)
    (moving / "moves.json").write_text('{"replaced": ["m"]}')
    finish_moves(place, str)
    assert state(place) == BEFORE
    assert os.listdir(tmp_path) == ["r"]


@pytest.mark.parametrize(
    "plan", ["", "{", "[]", '{"replaced": ["../x"]}', '{"replaced": ["/etc"]}', '{"replaced": [7]}', None]
)
def test_a_plan_that_is_none_is_not_carried_out(place: Path, tmp_path: Path, plan: str | None) -> None:
    moving = tmp_path / ".r.vivit-00000000.moving"
    made(moving / "new", "n")
    (moving / "old").mkdir()
    if plan is not None:
        (moving / "moves.json").write_text(plan)
    told: list[str] = []
    finish_moves(place, told.append)
    assert told == [f"removed {moving}, which an interrupted run had left"]
    assert state(place) == BEFORE


def test_one_folder_for_one_changes_in_one_step(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in OLD[1:]:
        shutil.rmtree(place / name)
    seen = []
    exchange = atomic.exchange

    def watched(one: Path, other: Path) -> bool:
        seen.append(state(place))
        done = exchange(one, other)
        seen.append(state(place))
        return done

    monkeypatch.setattr(atomic, "exchange", watched)
    move_in(made(tmp_path / "work", "m"), place, ("m",))
    assert seen == [{"m": "old", "theirs": "theirs"}, {"m": "new", "theirs": "theirs"}]
    assert os.listdir(tmp_path) == ["r"]


@pytest.mark.parametrize("supported", [True, False])
def test_a_repository_is_complete_whether_or_not_folders_can_be_exchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, supported: bool
) -> None:
    if not supported:
        monkeypatch.setattr(atomic, "exchange", lambda *_: False)
    bundle = make_bundle(tmp_path / "bundle")
    deploy(bundle, tmp_path / "r", name="m")
    first = tree(tmp_path / "r")
    deploy_triton(bundle, tmp_path / "r", TritonOptions(name="m", delay_us=7), force=True)
    assert tree(tmp_path / "r").keys() == first.keys() and tree(tmp_path / "r") != first
    assert sorted(os.listdir(tmp_path)) == ["bundle", "r"]


def test_deploying_says_what_it_finished_and_removed(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    deploy(bundle, tmp_path / "r", name="m")
    moving, part = tmp_path / ".r.vivit-00000000.moving", tmp_path / ".r.vivit-00000001.part"
    (moving / "new").mkdir(parents=True)
    (moving / "old").mkdir()
    (moving / "moves.json").write_text(json.dumps({"replaced": []}))
    (tmp_path / "r/m").rename(moving / "new/m")
    part.mkdir()
    told = Noted()
    deploy_triton(bundle, tmp_path / "r", TritonOptions(name="n"), progress=told)
    assert told.notes == [
        f"finished a deployment in {tmp_path / 'r'}, in which an earlier run was interrupted",
        f"removed {part}, which an interrupted run had left",
    ]
    assert sorted(os.listdir(tmp_path / "r")) == ["m", "n"]
    assert sorted(os.listdir(tmp_path)) == ["bundle", "r"]
