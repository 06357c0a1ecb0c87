"""Prove an opened session on this device with one golden clip, before it answers for anything.

A check of all clips at every batch is `vivit_export.runtime.drift.check`; this one takes as long as one clip, so that
it can come first wherever a bundle is opened. It finds an engine, a library or a driver that computes wrongly here at
its smallest batch.
"""

from __future__ import annotations

import hashlib

import numpy as np

from vivit_export.bundle import GOLDEN, Bundle
from vivit_export.bundle.checks import Drift, Gate
from vivit_export.errors import DriftError, option
from vivit_export.precision import Precision
from vivit_export.runtime.drift.check import first_golden_clip, gate_of
from vivit_export.runtime.drift.metrics import compare
from vivit_export.runtime.drift.passed import key_of, passed_before, remember
from vivit_export.runtime.session.backend import LocalBackend
from vivit_export.runtime.session.session import Session


def self_test(session: Session, backend: LocalBackend, bundle: Bundle, cpu_precision: Precision) -> str:
    """Run one golden clip, unless the engine was proven on this device, now or when it was built.

    The limits are those of the bundle's gate that hold for every clip by itself; where the caller lets a CPU compute in
    a lower type, the looser of these and that type's.

    Args:
        session: the opened bundle.
        backend: what it runs on.
        bundle: a verified bundle.
        cpu_precision: arithmetic that a CPU engine was asked for.

    Returns:
        What was found, as `Session.self_test` has it.

    Raises:
        DriftError: the result is beyond a limit; the sentence has the figure.
        BundleError: the golden clips are not this model's.
        EnvironmentFault: the engine does not run.
    """
    if bundle.golden is None:
        return "not run: the bundle has no golden clips"
    device = backend.device
    if device and any((on.device, on.driver) == (device.name, device.driver) for on in backend.verified_on):
        return f"not needed: verified on {device.name} when the engine was built"
    gate = gate_of(bundle).for_one_clip()
    if cpu_precision.rounds:
        gate = gate.loosened(cpu_precision.gate)
    key = key_of(_facts(session, backend, bundle, gate)) if device else ""
    if key and passed_before(key):
        return "not needed: passed on this device before"
    drift = _drift_of_one(session, bundle, gate)
    beyond = gate.violations(drift)
    if beyond:
        raise DriftError(
            f"{session.details} computes wrongly{f' on {device}' if device else ''}: for the first golden clip of "
            f"{bundle.path}, {'; '.join(beyond)}; update its driver or library, build the engine again, or choose "
            f"another one ({option('self_test', False)} opens it anyway)"
        )
    if key:
        remember(key)
    figures = {name: getattr(drift, name) for name in sorted(gate.limits)}
    return f"passed: {', '.join(f'{name} {figure:.3g}' for name, figure in figures.items() if figure is not None)}"


def _facts(session: Session, backend: LocalBackend, bundle: Bundle, gate: Gate) -> dict[str, str]:
    files = bundle.manifest.files
    hashes = "".join(files[name].sha256 for name in backend.files)
    return {
        "engine": hashlib.sha256(hashes.encode()).hexdigest(),
        "runs as": session.details,  # with the version of its library, and its arithmetic
        "device": str(backend.device),
        "golden clips": files[GOLDEN].sha256,
        "limits": ",".join(f"{name}={limit!r}" for name, limit in sorted(gate.limits.items())),
    }


def _drift_of_one(session: Session, bundle: Bundle, gate: Gate) -> Drift:
    """Compare the result for the first clip. The others count as equal: they set the range of logits."""
    frames, reference = first_golden_clip(bundle)
    found = session.run(frames)
    ours = {name: np.concatenate([found[name], rows[1:]]) for name, rows in reference.items()}
    return compare(reference, ours, gate.tie_margin, bundle.contract.task)
