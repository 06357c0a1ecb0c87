"""What a signature says about a folder, and whether that is the bundle that was read."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivit_export.bundle.signatures.statement import parse_statement, require_statement_on, statement_bytes
from vivit_export.errors import SignatureError

PATH = Path("b/model.sig")
ONE, TWO = "1" * 64, "2" * 64
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


def made(**changes: Any) -> dict[str, Any]:
    good: dict[str, Any] = json.loads(statement_bytes("b", {"bundle.json": ONE, "model.onnx": TWO}))
    return {**good, **changes}


def predicate(**changes: Any) -> dict[str, Any]:
    return {"predicate": {**made()["predicate"], **changes}}


def serialization(**changes: Any) -> dict[str, Any]:
    return predicate(serialization={**made()["predicate"]["serialization"], **changes})


def resource(**changes: Any) -> dict[str, Any]:
    return predicate(resources=[{**made()["predicate"]["resources"][0], **changes}])


def parse(statement: object) -> dict[str, str]:
    return parse_statement(json.dumps(statement).encode(), PATH)


@given(st.dictionaries(NAMES, st.binary(min_size=32, max_size=32).map(bytes.hex), min_size=1, max_size=5))
def test_what_is_written_is_read(digests: dict[str, str]) -> None:
    assert parse_statement(statement_bytes("b", digests), PATH) == digests


def test_the_statement_has_the_order_and_the_digest_that_the_format_demands() -> None:
    statement = json.loads(statement_bytes("b", {"b": TWO, "a": ONE, "a/c": ONE}))
    assert [item["name"] for item in statement["predicate"]["resources"]] == ["a", "a/c", "b"]
    digest = hashlib.sha256(bytes.fromhex(ONE + ONE + TWO)).hexdigest()
    assert statement["subject"] == [{"name": "b", "digest": {"sha256": digest}}]
    assert "model.sig" in statement["predicate"]["serialization"]["ignore_paths"]


def test_the_same_files_are_stated_in_the_same_bytes() -> None:
    assert statement_bytes("b", {"a": ONE, "b": TWO}) == statement_bytes("b", {"b": TWO, "a": ONE})


def test_what_a_resource_has_besides_is_ignored() -> None:
    assert parse(made(**resource(uri="x", annotations={"a": 1}))) == {"bundle.json": ONE}


FAULTS: dict[str, tuple[object, str]] = {
    "a list": ([], "payload must be a JSON object, got list"),
    "another type": (made(_type="x"), "payload._type must be https://in-toto.io/Statement/v1, got 'x'"),
    "another predicate": (
        made(predicateType="https://model_signing/Digests/v0.1"),
        "payload.predicateType must be https://model_signing/signature/v1.0, got 'https://model_signing/Digests/v0.1'",
    ),
    "no subject": (made(subject=[]), "payload.subject must be one subject, got 0"),
    "two subjects": (made(subject=[{}, {}]), "payload.subject must be one subject, got 2"),
    "a subject that is none": (made(subject={}), "payload.subject must be a list of object, got {}"),
    "an unknown field": (made(more=1), "payload has an unknown field 'more'; it was written by another version"),
    "no predicate": ({k: v for k, v in made().items() if k != "predicate"}, "payload lacks the field 'predicate'"),
    "shards": (made(**serialization(method="shards")), "it must have sha256 of files, got 'sha256' of 'shards'"),
    "BLAKE": (made(**serialization(hash_type="blake3")), "it must have sha256 of files, got 'blake3' of 'files'"),
    "links of no boolean": (
        made(**serialization(allow_symlinks=0)),
        "payload.predicate.serialization.allow_symlinks must be bool, got 0",
    ),
    "no resources": (made(predicate={"serialization": {}}), "payload.predicate lacks the field 'resources'"),
    "resources that are none": (
        made(**predicate(resources={})),
        "payload.predicate.resources must be a list of object, got {}",
    ),
    "a resource that is none": (
        made(**predicate(resources=[1])),
        "payload.predicate.resources[0] must be a JSON object, got int",
    ),
    "a resource without a name": (
        made(**predicate(resources=[{"digest": ONE, "algorithm": "sha256"}])),
        "payload.predicate.resources[0] lacks the field 'name'",
    ),
    "another algorithm": (
        made(**resource(algorithm="sha1")),
        "payload.predicate.resources[0] must have a sha256 of 64 hexadecimal digits, got '11111",
    ),
    "a short digest": (
        made(**resource(digest="11")),
        "payload.predicate.resources[0] must have a sha256 of 64 hex",
    ),
    "capital digits": (made(**resource(digest="A" * 64)), "payload.predicate.resources[0] must have a sha256 of 64 h"),
    "a name twice": (
        made(**predicate(resources=made()["predicate"]["resources"][:1] * 2)),
        "it names 'bundle.json' twice",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_with_its_place(fault: str) -> None:
    statement, said = FAULTS[fault]
    with pytest.raises(SignatureError) as refused:
        parse(statement)
    assert str(refused.value).startswith(f"b/model.sig: {said}")


def test_what_is_no_json() -> None:
    with pytest.raises(SignatureError, match=r"^b/model\.sig: its payload cannot be read as JSON \("):
        parse_statement(b'{"a": 1, "a": 2}', PATH)


def test_only_the_bundle_that_was_signed_is_meant() -> None:
    digests = {"bundle.json": ONE, "model.onnx": TWO, "more": ONE}
    require_statement_on(digests, ONE, {"model.onnx": TWO}, PATH)
    with pytest.raises(SignatureError, match=r"^b/model\.sig does not sign this bundle\.json: the bundle was changed"):
        require_statement_on(digests, TWO, {"model.onnx": TWO}, PATH)
    with pytest.raises(SignatureError, match=r"does not sign this bundle\.json"):
        require_statement_on({"model.onnx": TWO}, ONE, {"model.onnx": TWO}, PATH)
    for files in ({"model.onnx": ONE}, {"other": ONE}):
        with pytest.raises(SignatureError, match=r"does not sign (model\.onnx|other), which bundle\.json lists"):
            require_statement_on(digests, ONE, files, PATH)
