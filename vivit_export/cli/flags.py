"""The names of options on the command line."""

from __future__ import annotations

from vivit_export.precision import Precision

# Options whose flag differs from their name.
_FLAGS = {
    "batches": "--batch",
    "batches.min": "--min-batch",
    "batches.opt": "--opt-batch",
    "batches.max": "--max-batch",
    "calibration.data": "--calibration-data",
    "calibration.method": "--calibration-method",
    "calibration.num_clips": "--calibration-clips",
    "calibration.seed": "--calibration-seed",
    "calibration.smooth": "--smooth",
    "calibration.ranges": "--ranges",
    "certificates": "--certificate",
    "delay_us": "--max-delay-us",
    "input_mode": "--input",
    "password": "--password-file",
    "skip_rewrites": "--no-rewrite",
    "sms": "--sm",
    "targets": "--target",
}


def flag(name: str, value: str | None) -> str:
    """Return an option as the user types it on the command line; see `vivit_export.errors.option`."""
    if (name, value) in (("check", "False"), ("self_test", "False")):
        return f"--no-{name.replace('_', '-')}"
    if name == "precision" and value in set(Precision):
        return f"--{value}"
    known = _FLAGS.get(name) or f"--{name.replace('_', '-')}"
    return known if value is None else f"{known} {value}"
