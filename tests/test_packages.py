"""What may be absent or too old, in one place; pyproject.toml says the same to pip."""

from __future__ import annotations

import importlib
import importlib.util
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import project_file
import pytest

from vivit_export.errors import EnvironmentFault, MissingDependencyError
from vivit_export.flavour import Flavour
from vivit_export.packages import BASE, EXTRAS, LOWEST_PYAV, missing_package, naming_the_extra, require_version

ROOT = Path(__file__).parents[1]
PROJECT = project_file.project()


def lower_bounds(requirements: list[str]) -> dict[str, str]:
    """``onnx-ir>=0.1.16`` as name and bound; extras of the package itself are left out."""
    return dict(re.fullmatch(r"([\w-]+)(?:\[.*\])?>=([\d.]+)(?:[,;].*)?", text).groups() for text in requirements)  # type: ignore[union-attr,misc]


def test_the_lowest_versions_are_those_that_pip_is_told() -> None:
    extras = PROJECT["optional-dependencies"]
    assert lower_bounds(PROJECT["dependencies"])["av"] == LOWEST_PYAV
    for flavour in Flavour:
        assert lower_bounds(extras[flavour.extra])[str(flavour)] == flavour.lowest


def test_the_lowest_environment_has_the_lower_bounds() -> None:
    """What ``make test-lowest`` installs: the version that a bound names, or the first that begins with it."""
    text = (ROOT / "constraints-lowest.txt").read_text(encoding="utf-8")
    pinned = dict(line.split("==") for line in text.splitlines() if not line.startswith("#"))
    extras = PROJECT["optional-dependencies"]
    tested = [
        *PROJECT["dependencies"],
        *(r for extra in ("cpu", "hub", "openvino", "ray", "rtx", "sign", "triton") for r in extras[extra]),
    ]
    tested += [r for r in extras["export"] if r.startswith("onnx")]
    tested += [r for r in extras["dev"] if r.startswith("opencv")]  # it must fit the lowest NumPy
    bounds = lower_bounds(tested)
    assert set(pinned) == set(bounds)
    for name, bound in bounds.items():
        assert pinned[name].split(".")[: len(bound.split("."))] == bound.split("."), name


def test_every_package_of_the_extra_is_known() -> None:
    declared = {name.replace("-", "_") for name in lower_bounds(PROJECT["optional-dependencies"]["export"])}
    assert {name for name, extra in EXTRAS.items() if extra == "export"} == declared


def test_the_base_install_is_known() -> None:
    assert {name.replace("PIL", "pillow") for name in BASE} == set(lower_bounds(PROJECT["dependencies"]))


def test_the_base_install_is_for_serving() -> None:
    assert not set(lower_bounds(PROJECT["dependencies"])) & {name.replace("_", "-") for name in EXTRAS}


@pytest.mark.parametrize(
    ("module", "command"),
    [
        ("torch", '"vivit-export[export]"'),
        ("onnx_ir.passes", '"vivit-export[export]"'),
        ("numpy", "vivit-export"),
        ("httpx", "httpx"),  # of huggingface_hub: installing vivit-export again would not bring it
        ("cryptography.x509", '"vivit-export[sign]"'),
        ("ray", '"vivit-export[ray]"'),
        ("huggingface_hub", '"vivit-export[hub]"'),
        ("pyarrow.parquet", '"vivit-export[ray]"'),
    ],
)
def test_a_missing_package_is_told_with_its_extra(module: str, command: str) -> None:
    told = str(missing_package(module))
    assert module.partition(".")[0].replace("_", "-") in told
    assert told.endswith(f"install it with: pip install {command}")


def test_without_onnxruntime_one_command_installs_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert str(missing_package("torch")).endswith('pip install "vivit-export[export,cpu]"')


def test_only_packages_of_others_are_named() -> None:
    with pytest.raises(MissingDependencyError, match="needs the package transformers"), naming_the_extra():
        raise ModuleNotFoundError("no", name="transformers.models")
    with pytest.raises(ModuleNotFoundError), naming_the_extra():
        raise ModuleNotFoundError("a bug of ours", name="vivit_export.nonsense")


@pytest.mark.parametrize("installed", ["17", "17.0", "17.0.0rc1", "17.0.1", "18.1.0", "20"])
def test_new_enough(installed: str) -> None:
    require_version("PyAV", installed, "17.0", "it is wrong")


@pytest.mark.parametrize("installed", ["14.0.1", "16.1.0", "9.2", "nonsense"])
def test_too_old(installed: str) -> None:
    with pytest.raises(EnvironmentFault) as refused:
        require_version("PyAV", installed, "17.0", "it is wrong")
    assert str(refused.value) == (
        f"PyAV {installed} is installed, but 17.0 or newer is needed, because it is wrong; "
        "upgrade it with: pip install --upgrade vivit-export"
    )


@pytest.mark.parametrize(("version", "code"), [("16.1.0", 7), ("14.0.0", 7), ("17.0.1", 7), ("17.1.0", 0)])
def test_videos_are_not_read_by_an_old_pyav(version: str, code: int, tmp_path: Path) -> None:
    """Its colors would be wrong without a word."""
    program = f"""
        import av
        av.__version__ = {version!r}
        from vivit_export.cli import vivit
        vivit(["predict", "nowhere", "video.mp4"]) if {code} else __import__("vivit_export.runtime.clips.video.frames")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    if code:
        assert done.stderr == (
            f"error: PyAV {version} is installed, but 17.1 or newer is needed, because an older one gives other colors "
            "or crashes; upgrade it with: pip install --upgrade vivit-export\n"
        )


INTERRUPTED = """
try:
    raise KeyboardInterrupt
except KeyboardInterrupt as e:
    raise ImportError("initialization failed") from e
"""


@pytest.mark.parametrize(
    ("module", "importer"),
    [
        ("onnxruntime", "vivit_export.runtime.session.onnxruntime:_import_onnxruntime"),
        ("openvino", "vivit_export.runtime.session.openvino:_import_openvino"),
    ],
)
def test_ctrl_c_during_an_import_is_no_missing_package(
    module: str, importer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As extension modules do it: ONNX Runtime's, interrupted, is an ImportError."""
    place, _, name = importer.partition(":")
    function = getattr(importlib.import_module(place), name)
    (tmp_path / f"{module}.py").write_text(INTERRUPTED)
    monkeypatch.syspath_prepend(tmp_path)
    for loaded in [key for key in sys.modules if key.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, loaded)
    with pytest.raises(KeyboardInterrupt):
        function()
    (tmp_path / f"{module}.py").write_text("raise ImportError('it is broken')  # another size")
    with pytest.raises(EnvironmentFault, match=rf"package {module} is installed but cannot be imported \(it is broken"):
        function()
