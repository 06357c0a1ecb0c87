"""The child process of `vivit_export.export.verify`: one compiled engine runs the golden clips.

``python -m vivit_export.export.engine.golden_worker BUNDLE ENGINE`` writes one line of JSON to stdout. A process of its
own, because TensorRT and TensorRT for RTX do not fit into one, and a wrong engine can leave a GPU unusable for the
process that ran it.
"""

from __future__ import annotations

import json
import os
import sys

from vivit_export import __version__
from vivit_export.bundle import Bundle, read_bundle
from vivit_export.bundle.engines import BatchDrift, Verification
from vivit_export.errors import EnvironmentFault, VivitExportError
from vivit_export.records import JsonObject, to_json
from vivit_export.runtime.drift.check import check_session, gate_of, golden_clips
from vivit_export.runtime.session.session import Session
from vivit_export.runtime.session.tensorrt import TensorRTBackend, find_engine
from vivit_export.signals import die_with_parent


def main(arguments: list[str]) -> int:
    """Answer for an engine and return the exit status: 0 answered, 1 failed (the answer has the reason)."""
    die_with_parent()
    folder, name = arguments
    # From here on, whatever libraries print goes to stderr: stdout is for the answer.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        try:
            answer = run_golden(read_bundle(folder), name)
        except VivitExportError as e:
            answer = {"error": str(e), "fault_code": e.exit_code}
        answers.write(json.dumps(answer) + "\n")
    return 1 if "error" in answer else 0


def run_golden(bundle: Bundle, name: str) -> JsonObject:
    """Run an engine on the golden clips, at the smallest batch, the one that it is tuned for, and the largest.

    Returns:
        ``left_out``, why it cannot run on this machine; or ``verification``, a `Verification`, within the gate or not.

    Raises:
        VivitExportError: the engine fits this machine, but does not run.
    """
    record = bundle.engines[name]
    try:
        _, trt, cuda = find_engine(bundle, record.flavour, name)
    except EnvironmentFault as e:
        return {"left_out": str(e)}
    frames, reference = golden_clips(bundle)
    with Session(bundle.contract, TensorRTBackend(bundle, name, trt, cuda), {}) as session:
        runs = check_session(session, frames, reference, gate_of(bundle), [record.profile.opt])
    figures = tuple(BatchDrift(run.batch, run.drift) for run in runs if run.drift is not None)
    versions = {record.flavour.product: str(trt.__version__), "vivit-export": __version__}
    verified = Verification(cuda.device.name, cuda.device.driver, versions, len(frames), figures)
    return {"verification": to_json(verified)}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
