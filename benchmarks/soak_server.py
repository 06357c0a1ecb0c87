"""The soak of a real tritonserver, which takes requests while clients and the server itself are killed."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soak

import vivit_export as ve
from vivit_export.deploy.triton.deploy import TritonOptions, deploy_triton

SUPPORT = Path(__file__).parents[1] / "tests/support"
KILLED_CLIENTS = 20  # in a whole run
RESTARTS = (6, 12)  # at which look at the memory, of `soak.SAMPLES`: before what counts as settled
CLIENT = """
import sys
import numpy as np
import vivit_export as ve
with ve.open_session(sys.argv[1]) as session:
    clip = session.contract.clip
    clips = np.zeros((64, clip.num_frames, clip.height, clip.width, 3), np.uint8)
    print("asking", flush=True)
    while True:
        session.infer(clips)
"""


def soak_server(bundle: Path, requests: int, threads: int, bad_share: float, most: int) -> dict[str, Any]:
    """Serve a bundle, ask for clips, and kill clients and the server meanwhile.

    The server and what stands in for its back ends are those of the tests.
    """
    sys.path.insert(0, str(SUPPORT))
    from capabilities import fetched
    from triton_server import TritonServer, make_backends, running

    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        installed = fetched("fetch_triton.py", "tritonserver")
        backends = make_backends(installed, home / "backends")
        deployment = deploy_triton(bundle, home / "repository", TritonOptions(name="demo"))
        with running(TritonServer(installed, backends, [deployment.path], home)) as server:
            with (
                ve.open_session(bundle, prefer="onnxruntime-cpu") as known,
                ve.open_session(server.url("demo")) as asked,
            ):
                asker = soak.Asker(asked, known, bad_share, most)
                events = _Events(server)
                seconds = soak.soak(asker, requests, threads, events.resident, events.happen())
                right = _recovers(asked, asker)
            told = soak.facts(asker, seconds, threads) | {"engine": "tritonserver", "happened": dict(events.counts)}
            told["answers_right_at_the_end"] = right
            told["kinds"] = events.by_kind()
    print(told)
    return told


class _Events:
    """What happens to a server; at each of the looks at its memory something may.

    Attributes:
        counts: how often what happened.
    """

    def __init__(self, server: Any) -> None:
        self._server, self.counts = server, Counter[str]()
        self._looks: list[dict[str, int]] = []

    def resident(self) -> int:
        """Memory of the server, and not of its back ends' processes."""
        self._looks.append(soak.resident_by_kind(self._server.process.pid))
        return sum(self._looks[-1].values())

    def by_kind(self) -> dict[str, Any]:
        """How each kind of it grew."""
        return {kind: soak.growth_of([look[kind] for look in self._looks]) for kind in self._looks[0]}

    def happen(self) -> Iterator[None]:
        """Kill a client now and then, and the server twice."""
        kills = set(range(3, soak.SAMPLES, soak.SAMPLES // KILLED_CLIENTS))
        for number in range(soak.SAMPLES):
            if number in RESTARTS:
                self._server.kill()
                time.sleep(0.5)
                self._server.start()
                self.counts["server killed and started again"] += 1
            elif number in kills:
                self._kill_a_client()
            yield

    def _kill_a_client(self) -> None:
        command = [sys.executable, "-c", CLIENT, self._server.url("demo")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
            assert client.stdout is not None
            if client.stdout.readline() != "asking\n":
                status = self._server.process.poll()
                ended = "" if status is None else f"; the server ended with {status}:\n{self._server.tail()}"
                raise RuntimeError(f"a client could not ask{ended}")
            time.sleep(0.05)
            client.kill()
        self.counts["client killed in a request"] += 1


def _recovers(session: Any, asker: soak.Asker) -> int:
    """Ask for each clip alone after all this; return how many answers are right."""
    found = [session.infer(clip[None]) for clip in asker.clips]
    return sum(asker.off(logits, np.array([at])) <= soak.TOLERANCE for at, logits in enumerate(found))
