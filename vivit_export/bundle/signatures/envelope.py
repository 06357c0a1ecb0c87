"""The file ``model.sig``: a Sigstore bundle around a DSSE envelope, as OpenSSF Model Signing 1.0 has it.

What is signed is the payload (`vivit_export.bundle.signatures.statement`). Everything around it is not, so nothing here
decides which algorithm is used or whom to trust.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vivit_export.errors import InputError, SignatureError
from vivit_export.files import json_text, regular_bytes
from vivit_export.limits import MOST_CERTIFICATES, MOST_SIGNATURE_BYTES
from vivit_export.records import from_json, parse_json, shown

MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
AGAIN = "sign the bundle again"

_BASE64 = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")
_MATERIAL = ("publicKey", "x509CertificateChain", "certificate")


@dataclass(frozen=True, slots=True)
class Envelope:
    """A signature as it was read.

    Attributes:
        payload: what is signed.
        signature: over `signed_bytes` of the payload.
        certificates: DER, the signer's first; empty: it was made with a bare key.
    """

    payload: bytes
    signature: bytes
    certificates: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class _Signature:
    sig: str
    keyid: str | None = None


@dataclass(frozen=True, slots=True)
class _Dsse:
    payload: str
    payloadType: str  # noqa: N815 - as the format spells it
    signatures: tuple[_Signature, ...]


@dataclass(frozen=True, slots=True)
class _File:
    mediaType: str  # noqa: N815
    verificationMaterial: object  # noqa: N815 - the format tells readers to ignore what they do not know in it
    dsseEnvelope: _Dsse  # noqa: N815


def signed_bytes(payload: bytes) -> bytes:
    """Return what is signed for a payload: DSSE's pre-authentication encoding, which includes the type."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)


def read_small_file(path: Path) -> bytes:
    """Read a signature, a key or certificates; more than `MOST_SIGNATURE_BYTES` are none.

    Raises:
        OSError: it cannot be read, or is a folder, a pipe, a socket or a device.
        InputError: it is larger.
    """
    try:
        return regular_bytes(path, MOST_SIGNATURE_BYTES)
    except ValueError as e:
        raise InputError(
            f"{path} is larger than {MOST_SIGNATURE_BYTES >> 20} MiB; it holds no signature and no key"
        ) from e


def parse_envelope(data: bytes, path: Path) -> Envelope:
    """Parse a signature strictly.

    Args:
        data: bytes of the file.
        path: what messages call it.

    Raises:
        SignatureError: it is not a signature of the kind that is made here.
    """
    try:
        return _parse(parse_json(data.decode("utf-8")))
    except (ValueError, RecursionError) as e:
        raise SignatureError(f"{path} cannot be read as JSON ({e}); {AGAIN}") from e
    except InputError as e:
        raise SignatureError(f"{path}: {str(e).removeprefix('signature.')}; {AGAIN}") from e


def _parse(data: Any) -> Envelope:
    file = from_json(_File, data, "signature")
    if file.mediaType != MEDIA_TYPE:
        raise InputError(f"mediaType must be {MEDIA_TYPE}, got {shown(file.mediaType)}")
    envelope = file.dsseEnvelope
    if envelope.payloadType != PAYLOAD_TYPE:
        raise InputError(f"dsseEnvelope.payloadType must be {PAYLOAD_TYPE}, got {shown(envelope.payloadType)}")
    if len(envelope.signatures) != 1:
        raise InputError(f"dsseEnvelope.signatures must be one signature, got {len(envelope.signatures)}")
    payload = _decoded(envelope.payload, "dsseEnvelope.payload")
    signature = _decoded(envelope.signatures[0].sig, "dsseEnvelope.signatures[0].sig")
    return Envelope(payload, signature, _certificates(file.verificationMaterial))


def _certificates(material: Any) -> tuple[bytes, ...]:
    """Return the certificates of a signature; none if it was made with a key."""
    if not isinstance(material, dict):
        raise InputError(f"verificationMaterial must be a JSON object, got {shown(material)}")
    kinds = [name for name in _MATERIAL if name in material]
    if kinds == ["certificate"]:
        raise InputError("it was made with Sigstore and no key, which only Sigstore's own tools verify")
    if len(kinds) != 1:
        raise InputError("verificationMaterial must have either publicKey or x509CertificateChain")
    if kinds == ["publicKey"]:
        return ()
    where = "verificationMaterial.x509CertificateChain"
    chain = material["x509CertificateChain"]
    listed = chain.get("certificates") if isinstance(chain, dict) else None
    if not isinstance(listed, list) or not 1 <= len(listed) <= MOST_CERTIFICATES:
        raise InputError(f"{where} must have a list of 1 to {MOST_CERTIFICATES} certificates")
    texts = [item.get("rawBytes") if isinstance(item, dict) else None for item in listed]
    return tuple(_decoded(text, f"{where}.certificates[{i}].rawBytes") for i, text in enumerate(texts))


def _decoded(text: object, where: str) -> bytes:
    if not isinstance(text, str) or not text or not _BASE64.fullmatch(text):
        raise InputError(f"{where} must be text in Base64")
    return base64.b64decode(text)


def envelope_text(envelope: Envelope, hint: str) -> str:
    """Return the file for a signature.

    Args:
        envelope: the signature.
        hint: fingerprint of the key, for a signature without certificates.
    """
    material: dict[str, object] = {"publicKey": {"hint": hint}}
    if envelope.certificates:
        listed = [{"rawBytes": _encoded(der)} for der in envelope.certificates]
        material = {"x509CertificateChain": {"certificates": listed}}
    signatures: Sequence[object] = [{"sig": _encoded(envelope.signature), "keyid": ""}]
    return json_text(
        {
            "mediaType": MEDIA_TYPE,
            "verificationMaterial": {**material, "tlogEntries": []},
            "dsseEnvelope": {
                "payload": _encoded(envelope.payload),
                "payloadType": PAYLOAD_TYPE,
                "signatures": signatures,
            },
        }
    )


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
