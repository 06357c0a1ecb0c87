"""A server that runs ``vivit`` in forked processes, so that torch is loaded once for many of them.

Reads one JSON request per line: ``args``, ``cwd``, ``output`` (prefix of the files that take stdout,
stderr and the stages as they are entered), ``stage`` (to be interrupted) and ``hold`` (whether it
waits for that when entered). The network is traced once, unless tracing is to be interrupted.
Answers with the process id, then, when it has ended, with its exit status.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SECONDS_HELD = 60


def main(checkpoint: str) -> None:
    import torch

    torch.set_num_threads(1)  # threads do not survive a fork
    import onnx_ir as ir

    from vivit_export.export import pipeline
    from vivit_export.export.checkpoint.load import load_checkpoint
    from vivit_export.export.graph import build
    from vivit_export.export.graph.trace import trace

    assert pipeline
    traced = ir.to_proto(trace(load_checkpoint(checkpoint), ("logits", "embedding")))
    say("ready")
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if not child:
            if request["stage"] != "trace the network":
                vars(build)["trace"] = lambda *_: ir.from_proto(traced)
            run(**request)
        say(child)
        _, status = os.waitpid(child, 0)
        say(os.waitstatus_to_exitcode(status))


def say(answer: object) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def run(args: list[str], cwd: str, output: str, stage: str, hold: bool) -> None:
    """Become the command; does not return."""
    for number, name in ((1, "stdout"), (2, "stderr"), (3, "stages")):
        os.dup2(os.open(f"{output}.{name}", os.O_WRONLY | os.O_CREAT, 0o644), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(cwd)
    tell_stages(stage if hold else None)
    from vivit_export.cli import vivit

    status: Any = 1
    try:
        vivit(args)
    except SystemExit as e:
        status = e.code
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def tell_stages(hold: str | None) -> None:
    """Write each stage to file descriptor 3 as it is entered."""
    from vivit_export.progress import Silent

    stage = Silent.stage

    @contextmanager
    def told(self: Silent, name: str) -> Iterator[None]:
        with stage(self, name):
            os.write(3, f"{name}\n".encode())
            if name == hold:
                time.sleep(SECONDS_HELD)
            yield

    Silent.stage = told  # type: ignore[method-assign]


if __name__ == "__main__":
    main(sys.argv[1])
