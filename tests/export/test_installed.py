"""What is installed, against what pip knows, and the licenses that packages state."""

from __future__ import annotations

from importlib.metadata import PathDistribution, version
from pathlib import Path

import pytest

from vivit_export.export.installed import installed_packages, license_of


def test_what_we_require_is_found_with_all_that_it_requires() -> None:
    found = {package.name: package for package in installed_packages({"export", "cpu"})}
    assert {"vivit-export", "torch", "transformers", "onnxruntime", "huggingface-hub", "click"} <= set(found)
    assert found["torch"].version == version("torch")
    assert "tokenizers" in found["transformers"].requires
    assert all(name in found for package in found.values() for name in package.requires)
    assert not {"pytest", "openvino", "tritonclient"} & set(found)


def test_extras_bring_their_packages() -> None:
    assert "openvino" in {package.name for package in installed_packages({"openvino"})}
    assert "torch" not in {package.name for package in installed_packages(())}


@pytest.mark.parametrize(
    ("metadata", "stated"),
    [
        ("License-Expression: Apache-2.0 OR MIT\nLicense: else", "Apache-2.0 OR MIT"),
        ("Classifier: License :: OSI Approved :: BSD License\nLicense: BSD", "BSD-3-Clause"),
        ("Classifier: License :: OSI Approved :: MIT License\nClassifier: License :: OSI Approved", "MIT"),
        ("License: Apache 2.0 License", "Apache 2.0 License"),
        ("License: " + "x" * 300, "x" * 100),
        ("Classifier: License :: Other/Proprietary License", "Other/Proprietary License"),
        ("Classifier: Topic :: Other", ""),
    ],
)
def test_the_license_of_a_package(tmp_path: Path, metadata: str, stated: str) -> None:
    folder = tmp_path / "thing-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.4\nName: thing\nVersion: 1\n{metadata}\n")
    assert license_of(PathDistribution(folder)) == stated
