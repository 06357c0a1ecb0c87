"""A bundle under any sequence of operations, each ended at any step: it is as before, or as it should be, and whole.

Operations are in one table; an operation that changes a bundle belongs there.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from bundles import need
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from made_records import engine_record
from mortal import ERRORS, Killed, Steps
from small_bundle import CONTENT, fill

need("cryptography")
from made_keys import write_pair  # noqa: E402

from vivit_export import atomic  # noqa: E402
from vivit_export.bundle import read_bundle, write_manifest, writing  # noqa: E402
from vivit_export.bundle.manifest import Content  # noqa: E402
from vivit_export.bundle.signatures.sign import sign_bundle  # noqa: E402
from vivit_export.bundle.signatures.trust import read_trust  # noqa: E402
from vivit_export.bundle.signatures.verify import verify_signature  # noqa: E402
from vivit_export.errors import OutputError, VivitExportError  # noqa: E402
from vivit_export.export.amend import amend  # noqa: E402
from vivit_export.progress import Silent  # noqa: E402

_HOME = tempfile.TemporaryDirectory()
KEYS = write_pair(Path(_HOME.name))
HIDDEN = re.compile(r"\.bundle\.vivit-[0-9a-f]{8}\.(part|old)")
State = tuple[int, frozenset[str]] | None
"""What distinguishes two bundles here: the number of parameters, and the engines; None: there is no bundle."""


@dataclass(frozen=True)
class Operation:
    """Changes a bundle.

    Attributes:
        run: does it, with a number that tells one time from another.
        after: the state that it leads to.
        needs_bundle: whether there must be one.
    """

    run: Callable[[Path, int], object]
    after: Callable[[State, int], State]
    needs_bundle: bool = True


def write(path: Path, number: int) -> None:
    with writing(path, force=True) as work:
        fill(work)
        write_manifest(work, replace(CONTENT, model=replace(CONTENT.model, parameters=number)))


def build(path: Path, number: int) -> None:
    def add(work: Path, content: Content) -> Content:
        (work / f"engines/{_engine(number)}.plan").write_bytes(bytes([number]))
        return replace(content, engines={**content.engines, _engine(number): engine_record()})

    amend(path, add, Silent())


def _engine(number: int) -> str:
    return f"e{number % 3}"


def measure(path: Path, number: int) -> None:
    """Change the manifest alone, as ``vivit bench --save`` does."""
    amend(path, lambda _work, old: replace(old, model=replace(old.model, parameters=number)), Silent())


def sign(path: Path, _number: int) -> None:
    sign_bundle(path, KEYS[0], force=True)


OPERATIONS = {
    "write": Operation(write, lambda _, number: (number, frozenset(CONTENT.engines)), needs_bundle=False),
    "build": Operation(build, lambda state, number: state and (state[0], state[1] | {_engine(number)})),
    "measure": Operation(measure, lambda state, number: state and (number, state[1])),
    "sign": Operation(sign, lambda state, _: state),
}


NAMES, NUMBERS, STEPS = st.sampled_from(sorted(OPERATIONS)), st.integers(0, 9), st.integers(1, 60)


def found(path: Path) -> State:
    """What is there, with every hash verified, and the signature if there is one."""
    if not os.path.lexists(path):
        return None
    bundle = read_bundle(path)
    if (path / "model.sig").exists():
        verify_signature(bundle, read_trust(KEYS[1]))
    return bundle.manifest.model.parameters, frozenset(bundle.engines)


def run_to(path: Path, operation: Operation, number: int, steps: Steps) -> bool:
    """Whether an operation came to its end; what it leaves elsewhere is hidden, and known by its name."""
    try:
        with steps.counted():
            operation.run(path, number)
        done, said = True, ""
    except (Killed, VivitExportError) as e:
        done, said = False, str(e)
    assert "\n" not in said
    assert all(HIDDEN.fullmatch(name) for name in set(os.listdir(path.parent)) - {path.name})
    return done


def put_back(path: Path) -> None:
    """It was moved away, for a moment: any run puts it back, even one that is refused."""
    with pytest.raises(OutputError, match="exists; pass force"), writing(path, force=False):
        pytest.fail("not reached")


@pytest.mark.parametrize("can_exchange", [True, False])
@pytest.mark.parametrize("error", [None, errno.ENOSPC])
@pytest.mark.parametrize("name", OPERATIONS)
def test_at_every_single_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, error: int | None, can_exchange: bool
) -> None:
    if not can_exchange:
        monkeypatch.setattr(atomic, "_EXCHANGE", 1 << 20)
    path, operation = tmp_path / "bundle", OPERATIONS[name]
    write(path, 1)
    old = found(path)
    new = operation.after(old, 2)
    for step in range(1, 100):
        steps = Steps(step, error)
        run_to(path, operation, 2, steps)
        if not steps.reached:
            break
        if not can_exchange and not path.exists():
            put_back(path)
        assert found(path) in (old, new), step
        if found(path) == new:
            write(path, 1)
            assert os.listdir(tmp_path) == ["bundle"]
    # Python 3.10 takes one less that is seen: its pathlib has bound functions of os before they are watched.
    assert step >= (4 if name == "sign" else 20) and found(path) == new


class Crashes(RuleBasedStateMachine):
    """Runs operations, some to their end."""

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp())
        self.path = self.home / "bundle"
        self.state: State = None
        self.can_exchange = True
        self.patch = pytest.MonkeyPatch()

    def teardown(self) -> None:
        self.patch.undo()
        shutil.rmtree(self.home)

    @initialize(can_exchange=st.booleans())
    def choose_disk(self, can_exchange: bool) -> None:
        """Some file systems cannot exchange two folders."""
        self.can_exchange = can_exchange
        if not can_exchange:
            self.patch.setattr(atomic, "_EXCHANGE", 1 << 20)

    @rule(name=NAMES, number=NUMBERS)
    def run(self, name: str, number: int) -> None:
        """Nothing happens in between: nothing is left, whatever was."""
        if self._possible(name):
            OPERATIONS[name].run(self.path, number)
            self.state = OPERATIONS[name].after(self.state, number)
            assert os.listdir(self.home) == ["bundle"]

    @rule(name=NAMES, number=NUMBERS, step=STEPS)
    def kill(self, name: str, number: int, step: int) -> None:
        """The process is killed."""
        if self._possible(name):
            self._end(OPERATIONS[name], number, Steps(step))

    @rule(name=NAMES, number=NUMBERS, step=STEPS, error=st.sampled_from(ERRORS))
    def fail(self, name: str, number: int, step: int, error: int) -> None:
        """The disk refuses one step, which is told in one sentence."""
        if self._possible(name):
            self._end(OPERATIONS[name], number, Steps(step, error))

    def _possible(self, name: str) -> bool:
        return self.state is not None or not OPERATIONS[name].needs_bundle

    def _end(self, operation: Operation, number: int, steps: Steps) -> None:
        old, new = self.state, operation.after(self.state, number)
        if run_to(self.path, operation, number, steps):  # it may do without the step that failed
            self.state = new
            return
        assert steps.reached
        if old is not None and not self.can_exchange and not self.path.exists():
            put_back(self.path)
        self.state = found(self.path)
        assert self.state in (old, new)

    @invariant()
    def it_is_whole(self) -> None:
        """Every hash is right, and the content is what was written."""
        assert found(self.path) == self.state


TestCrashes = Crashes.TestCase
TestCrashes.settings = settings(
    max_examples=25, stateful_step_count=10, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
