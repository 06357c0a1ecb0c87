"""The bill of materials, against CycloneDX's own schema and SPDX's licenses."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import cyclonedx.schema
import jsonschema
import pytest
from license_expression import get_spdx_licensing
from referencing import Registry, Resource
from small_bundle import CONTENT, FILES, fill, home

from vivit_export.bundle import SBOM, read_bundle, write_manifest
from vivit_export.bundle.sbom import Package, write_sbom
from vivit_export.errors import BundleError

__all__ = ["home"]
PACKAGES = (
    Package("torch", "2.13.0+cpu", "Apache-2.0 AND BSD-3-Clause", ("typing-extensions",)),
    Package("transformers", "5.23.0", "Apache 2.0 License", ("torch", "not-here")),
    Package("typing-extensions", "4.16.0", "PSF-2.0", ()),
    Package("unstated", "1", "", ()),
)


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft7Validator:
    folder = Path(cyclonedx.schema.__file__).parent / "_res"
    schemas = {
        (name := f"{kind}.SNAPSHOT.schema.json"): json.loads((folder / name).read_text())
        for kind in ("bom-1.6", "spdx", "jsf-0.82")
    }
    bom = schemas["bom-1.6.SNAPSHOT.schema.json"]
    resources = {name: Resource.from_contents(schema) for name, schema in schemas.items()}
    registry = Registry().with_resources(
        [*resources.items(), *((urljoin(bom["$id"], n), r) for n, r in resources.items())]
    )
    return jsonschema.Draft7Validator(bom, registry=registry)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    fill(tmp_path)
    content = dataclasses.replace(
        CONTENT,
        model=dataclasses.replace(CONTENT.model, revision="abc", weights_sha256={"model.safetensors": "ab" * 32}),
    )
    write_sbom(tmp_path, content, PACKAGES)
    write_manifest(tmp_path, content)
    return tmp_path


def read(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / SBOM).read_text()))


def components(folder: Path, kind: str) -> dict[str, dict[str, Any]]:
    return {c["name"]: c for c in read(folder)["components"] if c["type"] == kind}


def test_it_follows_the_schema(folder: Path, validator: jsonschema.Draft7Validator) -> None:
    validator.validate(read(folder))
    broken = read(folder) | {"serialNumber": "4"}
    with pytest.raises(jsonschema.ValidationError):  # the validator can fail
        validator.validate(broken)


def test_it_lists_the_files_with_the_hashes_of_the_manifest(folder: Path) -> None:
    listed = read_bundle(folder).manifest.files
    found = {name: c["hashes"][0]["content"] for name, c in components(folder, "file").items()}
    assert found == {name: record.sha256 for name, record in listed.items() if name != SBOM}
    assert {*found, "bundle.json"} >= set(FILES)
    assert components(folder, "file")["engines/rtx.plan"]["properties"][0]["value"] == "tensorrt 11.4.0.106"


def test_it_names_the_weights_and_the_packages(folder: Path) -> None:
    model = read(folder)["metadata"]["component"]
    assert (model["type"], model["version"]) == ("machine-learning-model", "abc")
    assert model["pedigree"]["ancestors"][0]["hashes"][0]["content"] == "ab" * 32
    assert components(folder, "library")["torch"]["purl"] == "pkg:pypi/torch@2.13.0%2Bcpu"
    edges = {entry["ref"]: entry["dependsOn"] for entry in read(folder)["dependencies"]}
    assert edges["pkg:pypi/transformers@5.23.0"] == ["pkg:pypi/torch@2.13.0%2Bcpu"]


def test_licenses_are_expressions_where_spdx_knows_them(folder: Path) -> None:
    found = {name: c.get("licenses") for name, c in components(folder, "library").items()}
    assert found == {
        "torch": [{"expression": "Apache-2.0 AND BSD-3-Clause"}],
        "transformers": [{"license": {"name": "Apache 2.0 License"}}],
        "typing-extensions": [{"license": {"id": "PSF-2.0"}}],
        "unstated": None,
    }
    spdx = get_spdx_licensing()
    for expression in (entry[0]["expression"] for entry in found.values() if entry and "expression" in entry[0]):
        assert not spdx.validate(expression).errors


def test_the_same_bundle_has_the_same_one(folder: Path) -> None:
    before = (folder / SBOM).read_bytes()
    write_manifest(folder, read_bundle(folder).manifest.content)
    assert (folder / SBOM).read_bytes() == before


def test_a_changed_bundle_lists_its_new_files_and_keeps_the_packages(folder: Path) -> None:
    packages, serial = components(folder, "library"), read(folder)["serialNumber"]
    content = read_bundle(folder).manifest.content
    (folder / "engines/rtx.plan").write_bytes(b"another")
    write_manifest(folder, content)
    assert (
        components(folder, "file")["engines/rtx.plan"]["hashes"][0]["content"]
        == read_bundle(folder).manifest.files["engines/rtx.plan"].sha256
    )
    assert components(folder, "library") == packages
    assert read(folder)["serialNumber"] != serial


def test_a_bundle_without_one_gets_none(home: Path) -> None:
    assert not (home / "old" / SBOM).exists()


ENTRY = {"type": "library", "bom-ref": "a", "name": "a", "version": "1"}
ALONE = [{"ref": "a", "dependsOn": []}]


@pytest.mark.parametrize(
    "found",
    [
        *([], {}, {"components": 1, "dependencies": []}, {"components": [1], "dependencies": []}),
        {"components": [{"type": "library"}], "dependencies": []},
        {"components": [], "dependencies": [{"ref": []}]},
        {"components": [ENTRY | {"version": {}}], "dependencies": ALONE},
        {"components": [ENTRY | {"name": 1}], "dependencies": ALONE},
        {"components": [ENTRY], "dependencies": []},
        {"components": [ENTRY], "dependencies": [{"ref": "a", "dependsOn": ["b"]}]},
        {"components": [ENTRY | {"licenses": [3]}], "dependencies": ALONE},
        {"components": [ENTRY | {"licenses": []}], "dependencies": ALONE},
        {"components": [ENTRY | {"licenses": [{"license": {}}]}], "dependencies": ALONE},
    ],
)
def test_what_is_not_ours_is_refused(folder: Path, found: Any) -> None:
    content = read_bundle(folder).manifest.content
    (folder / SBOM).write_text(json.dumps(found))
    with pytest.raises(BundleError, match="is not a bill of materials that vivit-export wrote"):
        write_manifest(folder, content)


@pytest.mark.parametrize("text", ["", "{", "[" * 1000, '{"a": 1, "a": 2}'])
def test_what_is_no_json_is_refused(folder: Path, text: str) -> None:
    content = read_bundle(folder).manifest.content
    (folder / SBOM).write_text(text)
    with pytest.raises(BundleError, match="is not a bill of materials that vivit-export wrote"):
        write_manifest(folder, content)
