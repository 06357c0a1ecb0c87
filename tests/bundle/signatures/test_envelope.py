"""The file of a signature: read strictly, written as OpenSSF Model Signing has it."""

from __future__ import annotations

import base64
import copy
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivit_export.bundle.signatures.envelope import (
    Envelope,
    envelope_text,
    parse_envelope,
    read_small_file,
    signed_bytes,
)
from vivit_export.errors import InputError, SignatureError

PATH = Path("b/model.sig")
GOOD: dict[str, Any] = {
    "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
    "verificationMaterial": {"publicKey": {"hint": "ab"}},
    "dsseEnvelope": {
        "payload": base64.b64encode(b"payload").decode(),
        "payloadType": "application/vnd.in-toto+json",
        "signatures": [{"sig": base64.b64encode(b"made").decode()}],
    },
}
DSSE, MATERIAL = "dsseEnvelope", "verificationMaterial"


def changed(*path: str | int, value: Any) -> dict[str, Any]:
    """The good file with one value replaced; removed if it is an ellipsis."""
    made: Any = copy.deepcopy(GOOD)
    place = made
    for key in path[:-1]:
        place = place[key]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return dict(made)


def parse(made: object) -> Envelope:
    return parse_envelope(json.dumps(made).encode(), PATH)


def chain(*ders: object) -> dict[str, Any]:
    return {"x509CertificateChain": {"certificates": [{"rawBytes": der} for der in ders]}}


def test_what_is_signed_is_the_example_of_dsse() -> None:
    """https://github.com/secure-systems-lab/dsse/blob/master/protocol.md has the form."""
    assert signed_bytes(b"hello world") == b"DSSEv1 28 application/vnd.in-toto+json 11 hello world"
    assert signed_bytes(b"") == b"DSSEv1 28 application/vnd.in-toto+json 0 "


@given(st.binary(min_size=1), st.binary(min_size=1), st.lists(st.binary(min_size=1), max_size=8))
def test_what_is_written_is_read(payload: bytes, signature: bytes, ders: list[bytes]) -> None:
    made = Envelope(payload, signature, tuple(ders))
    assert parse_envelope(envelope_text(made, "ab").encode(), PATH) == made


@pytest.mark.parametrize(
    "made",
    [
        GOOD,
        changed(DSSE, "signatures", 0, "keyid", value=None),
        changed(DSSE, "signatures", 0, "keyid", value=""),
        changed(MATERIAL, "tlogEntries", value=[]),
        changed(MATERIAL, value={"publicKey": {"rawBytes": "AA==", "keyDetails": "PKIX_ECDSA_P256_SHA_256"}}),
        changed(MATERIAL, value={"publicKey": None, "somethingNew": [1]}),
    ],
)
def test_what_other_versions_write_is_read(made: dict[str, Any]) -> None:
    assert parse(made) == Envelope(b"payload", b"made")


LIST = "verificationMaterial.x509CertificateChain must have a list of 1 to 8 certificates"
FAULTS: dict[str, tuple[object, str]] = {
    "a list": ([], "signature must be a JSON object, got list"),
    "no payload": (changed(DSSE, "payload", value=...), "dsseEnvelope lacks the field 'payload'; it is incomplete"),
    "a number": (changed(DSSE, "payload", value=1), "dsseEnvelope.payload must be str, got 1"),
    "an unknown field": (changed("more", value=1), "signature has an unknown field 'more'; it was written by another "),
    "an unknown field inside": (changed(DSSE, "more", value=1), "dsseEnvelope has an unknown field 'more'"),
    "another media type": (
        changed("mediaType", value="application/vnd.dev.sigstore.bundle.v0.2+json"),
        "mediaType must be application/vnd.dev.sigstore.bundle.v0.3+json, got 'application/vnd.dev.sigstore",
    ),
    "another payload type": (
        changed(DSSE, "payloadType", value="text/plain"),
        "dsseEnvelope.payloadType must be application/vnd.in-toto+json, got 'text/plain'",
    ),
    "no signature": (changed(DSSE, "signatures", value=[]), "dsseEnvelope.signatures must be one signature, got 0"),
    "two signatures": (
        changed(DSSE, "signatures", value=[{"sig": "AA=="}] * 2),
        "dsseEnvelope.signatures must be one signature, got 2",
    ),
    "signatures of no list": (
        changed(DSSE, "signatures", value={}),
        "dsseEnvelope.signatures must be a list of a JSON object, got {}",
    ),
    "a key id of another type": (
        changed(DSSE, "signatures", 0, "keyid", value=1),
        "dsseEnvelope.signatures[0].keyid must be str or null, got 1",
    ),
    "an empty signature": (
        changed(DSSE, "signatures", 0, "sig", value=""),
        "dsseEnvelope.signatures[0].sig must be text in Base64",
    ),
    "an empty payload": (changed(DSSE, "payload", value=""), "dsseEnvelope.payload must be text in Base64"),
    "padding that is missing": (changed(DSSE, "payload", value="AA="), "dsseEnvelope.payload must be text in Base64"),
    "padding in the middle": (changed(DSSE, "payload", value="AA==AA=="), "dsseEnvelope.payload must be text in "),
    "another alphabet": (changed(DSSE, "payload", value="-_-_"), "dsseEnvelope.payload must be text in Base64"),
    "a line break": (changed(DSSE, "payload", value="AAAA\n"), "dsseEnvelope.payload must be text in Base64"),
    "only padding": (changed(DSSE, "payload", value="===="), "dsseEnvelope.payload must be text in Base64"),
    "material of no object": (changed(MATERIAL, value=[]), "verificationMaterial must be a JSON object, got []"),
    "no material": (changed(MATERIAL, value={}), "verificationMaterial must have either publicKey or x509Certificate"),
    "a key and a chain": (
        changed(MATERIAL, value={"publicKey": {}, **chain("AA==")}),
        "verificationMaterial must have either publicKey or x509CertificateChain",
    ),
    "Sigstore": (
        changed(MATERIAL, value={"certificate": {"rawBytes": "AA=="}, "tlogEntries": [{}]}),
        "it was made with Sigstore and no key, which only Sigstore's own tools verify",
    ),
    "an empty chain": (
        changed(MATERIAL, value=chain()),
        LIST,
    ),
    "a long chain": (
        changed(MATERIAL, value=chain(*["AA=="] * 9)),
        LIST,
    ),
    "a chain that is none": (
        changed(MATERIAL, value={"x509CertificateChain": 1}),
        LIST,
    ),
    "a certificate that is none": (
        changed(MATERIAL, value=chain("AA==", 5)),
        "verificationMaterial.x509CertificateChain.certificates[1].rawBytes must be text in Base64",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_with_its_place(fault: str) -> None:
    made, said = FAULTS[fault]
    with pytest.raises(SignatureError) as refused:
        parse(made)
    assert str(refused.value).startswith(f"b/model.sig: {said}")
    assert str(refused.value).endswith("; sign the bundle again")


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b'{"a": 1, "a": 2}', b"[" * 100_000, b'["\\ud800"]'])
def test_what_is_no_json(data: bytes) -> None:
    with pytest.raises(SignatureError, match=r"^b/model\.sig cannot be read as JSON \(.*\); sign the bundle again$"):
        parse_envelope(data, PATH)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (os.mkfifo, "it is a pipe, not a file"),
        (Path.mkdir, "it is a folder, not a file"),
        (lambda path: path.symlink_to("/dev/zero"), "it is a device, not a file"),
        (lambda path: path.symlink_to(path.name), "Too many levels of symbolic links"),
    ],
)
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, make: Callable[[Path], object], said: str) -> None:
    make(tmp_path / "x")
    with pytest.raises(OSError, match=said):
        read_small_file(tmp_path / "x")


def test_no_more_is_read_than_a_signature_may_have(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with path.open("wb") as file:
        file.truncate(4 << 20)
    assert len(read_small_file(path)) == 4 << 20
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(InputError, match="is larger than 4 MiB; it holds no signature and no key"):
        read_small_file(path)
