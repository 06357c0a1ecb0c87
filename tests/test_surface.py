"""The Python surface: what an editor completes, and what importing it costs."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest
from bundles import need

import vivit_export as ve

VERBS = (
    "export_model",
    "calibrate",
    "convert_scenic",
    "build_engines",
    "build",
    "inspect",
    "read_bundle",
    "open_session",
    "stream",
    "check",
    "bench",
    "deploy_triton",
    "deploy_cpp",
    "sign_bundle",
    "verify_bundle",
    "card",
    "assert_no_drift",
)
WITH_TORCH = ("export_model", "calibrate")


@pytest.mark.parametrize("verb", VERBS)
def test_every_argument_of_a_verb_has_a_type_and_is_explained(verb: str) -> None:
    if verb in WITH_TORCH:
        need("torch")
    function = getattr(ve, verb)
    parameters = inspect.signature(function).parameters.values()
    assert all(parameter.annotation not in (inspect.Parameter.empty, "Any") for parameter in parameters)
    told = inspect.getdoc(function) or ""
    assert not [p.name for p in parameters if f"\n    {p.name}: " not in told.replace("**", "")]
    assert "Raises:" in told


def test_the_verbs_that_need_no_torch_load_none() -> None:
    light = [verb for verb in VERBS if verb not in WITH_TORCH]
    code = f"import sys, vivit_export as ve; [getattr(ve, v) for v in {light!r}]; assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
