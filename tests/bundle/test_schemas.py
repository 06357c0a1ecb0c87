"""The schemas that are published with the package are those of our records, and describe what we write."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import write_schemas
from bundles import Bundles
from jsonschema import Draft202012Validator, ValidationError

from vivit_export.calibration.options import CalibrationOptions

DATA = Path(__file__).parents[1] / "data"


def validator(name: str) -> Draft202012Validator:
    schema = json.loads((write_schemas.FOLDER / name).read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def load(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_the_published_files_are_up_to_date() -> None:
    written = {path.name: path.read_text(encoding="utf-8") for path in write_schemas.FOLDER.iterdir()}
    made = {name: write_schemas.text(schema) for name, schema in write_schemas.schemas().items()}
    assert written == made, "run: python tools/write_schemas.py"


@pytest.fixture(scope="module")
def folder(bundles: Bundles) -> Path:
    """A bundle that has every section but engines and bench."""
    calibration = CalibrationOptions(num_clips=32)
    return bundles.demo(precision="int8", check=True, num_clips=1, calibration=calibration).path


@pytest.mark.needs_onnxruntime
@pytest.mark.parametrize("name", ["bundle", "report", "ranges"])
def test_what_an_export_writes_fits(folder: Path, name: str) -> None:
    check, data = validator(f"{name}.schema.json"), load(folder / f"{name}.json")
    check.validate(data)
    for wrong in ({**data, "more": 1}, {**data, "format": "vivit/9"}, {k: v for k, v in data.items() if k != "format"}):
        with pytest.raises(ValidationError):
            check.validate(wrong)


@pytest.mark.needs_onnxruntime
@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("model", "parameters"), "many"),
        (("contract", "clip", "sampling"), "random"),
        (("contract", "clip", "views"), [1]),
        (("precision", "name"), "fp4"),
        (("precision", "quantization", "clips", "used"), None),
        (("checks", "runs", 0, "batch"), 1.5),
        (("files", "model.onnx"), {}),
    ],
)
def test_a_wrong_value_does_not_fit(folder: Path, path: tuple[str | int, ...], value: Any) -> None:
    data = deepcopy(load(folder / "bundle.json"))
    place = data
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(ValidationError):
        validator("bundle.schema.json").validate(data)


@pytest.mark.parametrize("schema", write_schemas.schemas().values(), ids=write_schemas.schemas())
def test_every_field_is_explained_but_that_of_the_format(schema: dict[str, Any]) -> None:
    for record in (schema, *schema.get("$defs", {}).values()):
        silent = {name for name, field in record["properties"].items() if not field.get("description")}
        assert silent <= {"format"}
