"""Versions of transformers: those whose networks could not be quantized are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import transformers

from vivit_export.errors import EnvironmentFault
from vivit_export.export.checkpoint.load import OLDEST_TRANSFORMERS, load_checkpoint


@pytest.mark.parametrize("version", ["4.46.3", "4.49.0", "4.57.6", "5.0.0", "5.8.1"])
def test_a_version_whose_modules_have_other_names_is_refused(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """These were installed and tried: INT8 quantized none of their layers."""
    monkeypatch.setattr(transformers, "__version__", version)
    with pytest.raises(EnvironmentFault) as caught:
        load_checkpoint("demo")
    assert str(caught.value) == (
        f"transformers {version} is too old to export from; checkpoints of any version can be read with 5.9 or newer: "
        'pip install --upgrade "transformers>=5.9"'
    )
    assert caught.value.exit_code == 7


@pytest.mark.parametrize("version", ["5.9.0", "5.10.0.dev0", "6.0"])
def test_newer_versions_are_taken(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transformers, "__version__", version)
    assert load_checkpoint("demo").num_layers == 4


def test_the_package_requires_the_oldest_version_that_it_takes() -> None:
    wanted = f'"transformers>={".".join(map(str, OLDEST_TRANSFORMERS))}"'
    assert wanted in (Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8")
