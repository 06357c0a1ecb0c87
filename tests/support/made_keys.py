"""Keys, certificates and signatures of every kind, good and bad, as the library of another project makes them."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID, ObjectIdentifier

CURVES: dict[str, ec.EllipticCurve] = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}
HASHES: dict[str, hashes.HashAlgorithm] = {
    "secp256r1": hashes.SHA256(),
    "secp384r1": hashes.SHA384(),
    "secp521r1": hashes.SHA512(),
}
TYPE = "application/vnd.in-toto+json"

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


def make_key(curve: str = "P-256") -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(CURVES[curve])


def write_private(key: Key, path: Path, password: str | None = None, traditional: bool = False) -> Path:
    form = serialization.PrivateFormat
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password is not None:
        encryption = serialization.BestAvailableEncryption(password.encode())
    kind = form.TraditionalOpenSSL if traditional else form.PKCS8
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, kind, encryption))
    return path


def write_public(key: Key, path: Path) -> Path:
    info = serialization.PublicFormat.SubjectPublicKeyInfo
    path.write_bytes(key.public_key().public_bytes(serialization.Encoding.PEM, info))
    return path


def write_pair(folder: Path, name: str = "signer", curve: str = "P-256") -> tuple[Path, Path]:
    """A private and a public key of a name."""
    key = make_key(curve)
    return write_private(key, folder / f"{name}.pem"), write_public(key, folder / f"{name}.pub")


def write_keys_of_the_page(folder: Path) -> None:
    """What the commands of docs/signing.md make, where openssl is not installed."""
    write_pair(folder)
    authority = certify("Example", authority=True)
    signer = certify("Me", authority, names=[x509.RFC822Name("me@example.com")])
    write_private(signer.key, folder / "me.pem")
    write_certificates(folder / "me.crt", signer)
    write_certificates(folder / "ca.pem", authority)


@dataclass(frozen=True)
class Made:
    """A certificate with its key."""

    found: x509.Certificate
    key: Key

    @property
    def der(self) -> bytes:
        return self.found.public_bytes(serialization.Encoding.DER)


def certify(
    name: str,
    by: Made | None = None,
    *,
    key: Key | None = None,
    authority: bool = False,
    constraints: bool = True,
    depth: int | None = None,
    usage: bool = True,
    signs: bool | None = None,
    purposes: Sequence[ObjectIdentifier] = (),
    names: Sequence[x509.GeneralName] = (),
    days: tuple[float, float] = (-1, 30),
) -> Made:
    """Make a certificate; by default what a signer, or with ``authority`` what an authority, should have.

    Args:
        name: common name.
        by: who issues it; None: itself.
        key: its key.
        authority: whether it may issue others.
        constraints: whether it says so.
        depth: how many authorities may follow.
        usage: whether it has a key usage.
        signs: whether that has digitalSignature.
        purposes: of its extended key usage; none: it has none.
        names: alternative names.
        days: validity from today.
    """
    key = key or make_key()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issuer_key = by.key if by else key
    now = datetime.now(timezone.utc)
    builder = x509.CertificateBuilder(by.found.subject if by else subject, subject, key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now + timedelta(days=days[0])).not_valid_after(now + timedelta(days=days[1]))
    if constraints:
        builder = builder.add_extension(x509.BasicConstraints(authority, depth), critical=True)
    if usage:
        own = not authority if signs is None else signs
        flags = x509.KeyUsage(own, False, not own, False, False, authority, authority, False, False)
        builder = builder.add_extension(flags, critical=True)
    if purposes:
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = builder.add_extension(identifier, critical=False)
    if by:
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(by.key.public_key())
        builder = builder.add_extension(issuer, critical=False)
    algorithm = None if isinstance(issuer_key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return Made(builder.sign(issuer_key, algorithm), key)


def write_certificates(path: Path, *certificates: Made) -> Path:
    path.write_bytes(b"".join(one.found.public_bytes(serialization.Encoding.PEM) for one in certificates))
    return path


# --- signatures, made by hand --------------------------------------------------------------------------------------


def encode(payload: bytes, kind: str = TYPE) -> bytes:
    """DSSE's pre-authentication encoding, written from its specification."""
    return b" ".join([b"DSSEv1", str(len(kind)).encode(), kind.encode(), str(len(payload)).encode(), payload])


def sign_bytes(key: Key, data: bytes, algorithm: hashes.HashAlgorithm | None = None) -> bytes:
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key.sign(data, ec.ECDSA(algorithm or HASHES[key.curve.name]))


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def envelope(payload: bytes, signature: bytes, chain: Sequence[bytes] = (), kind: str = TYPE) -> dict[str, Any]:
    """The file, as parsed JSON."""
    material: dict[str, Any] = {"publicKey": {"hint": "0" * 64}, "tlogEntries": []}
    if chain:
        material = {"x509CertificateChain": {"certificates": [{"rawBytes": text(der)} for der in chain]}}
    return {
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": material,
        "dsseEnvelope": {
            "payload": text(payload),
            "payloadType": kind,
            "signatures": [{"sig": text(signature), "keyid": ""}],
        },
    }


def statement(digests: dict[str, str], **changes: Any) -> dict[str, Any]:
    """A statement on files, as parsed JSON; ``changes`` replace parts of it."""
    resources = [{"name": name, "algorithm": "sha256", "digest": digest} for name, digest in sorted(digests.items())]
    serialization_of = {"method": "files", "hash_type": "sha256", "allow_symlinks": False}
    made: dict[str, Any] = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "bundle", "digest": {"sha256": "0" * 64}}],
        "predicateType": "https://model_signing/signature/v1.0",
        "predicate": {"resources": resources, "serialization": serialization_of},
    }
    return {**made, **changes}


def sign_statement(key: Key, made: dict[str, Any], chain: Sequence[Made] = ()) -> dict[str, Any]:
    """A file that signs a statement."""
    payload = json.dumps(made).encode()
    return envelope(payload, sign_bytes(key, encode(payload)), [one.der for one in chain])


def digests_of(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a bundle, by name."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "model.sig")
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def write_signature(folder: Path, made: dict[str, Any]) -> Path:
    path = folder / "model.sig"
    path.write_text(json.dumps(made))
    return path
