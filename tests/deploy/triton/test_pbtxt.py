"""What is rendered is what protobuf reads."""

from __future__ import annotations

import pytest
from bundles import need
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st

from vivit_export.deploy.triton.pbtxt import Symbol, map_field, render

need("tritonclient")
from tritonclient.grpc import model_config_pb2  # noqa: E402

Config = model_config_pb2.ModelConfig


def parse(text: str) -> model_config_pb2.ModelConfig:
    return text_format.Parse(text, Config())


@given(name=st.text(), keys=st.dictionaries(st.text(), st.text(), max_size=4), size=st.integers(-(2**31), 2**31 - 1))
def test_any_string_and_number_comes_back(name: str, keys: dict[str, str], size: int) -> None:
    parameters = map_field({key: {"string_value": value} for key, value in keys.items()})
    read = parse(render({"name": name, "max_batch_size": size, "parameters": parameters}))
    assert (read.name, read.max_batch_size) == (name, size)
    assert {key: value.string_value for key, value in read.parameters.items()} == keys


@given(st.lists(st.lists(st.integers(-1, 2**40), max_size=5), max_size=4), st.booleans())
def test_any_list_comes_back(shapes: list[list[int]], graphs: bool) -> None:
    inputs = [{"name": "x", "data_type": Symbol("TYPE_UINT8"), "dims": dims} for dims in shapes]
    read = parse(render({"input": inputs, "optimization": {"cuda": {"graphs": graphs}}}))
    assert [list(tensor.dims) for tensor in read.input] == shapes
    assert {tensor.data_type for tensor in read.input} <= {model_config_pb2.TYPE_UINT8}
    assert read.optimization.cuda.graphs is graphs


def test_it_reads_well() -> None:
    message = {"name": "a", "version_policy": {"latest": {"num_versions": 1}}, "input": [{"dims": [1, 2]}]}
    assert render(message) == (
        'name: "a"\nversion_policy {\n  latest {\n    num_versions: 1\n  }\n}\ninput {\n  dims: [ 1, 2 ]\n}\n'
    )


def test_the_reader_would_notice_a_wrong_field() -> None:
    with pytest.raises(text_format.ParseError, match="has no field named"):
        parse(render({"nonsense": 1}))
