"""Keys as PEM files: elliptic curves P-256, P-384 and P-521, each with its own hash, as OpenSSF Model Signing has them.

The curve of the key that the verifier trusts decides the algorithm. Nothing in a signature can choose another.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from vivit_export.bundle.signatures.envelope import read_small_file
from vivit_export.errors import InputError, UsageError, option
from vivit_export.packages import naming_the_extra

with naming_the_extra():
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, rsa
    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

_HASHES: dict[str, hashes.HashAlgorithm] = {
    "secp256r1": hashes.SHA256(),
    "secp384r1": hashes.SHA384(),
    "secp521r1": hashes.SHA512(),
}
_MAKE = "make one with: openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out FILE"
_BEGIN = re.compile(rb"^-----BEGIN ([A-Z0-9 ]+)-----\s*$", re.MULTILINE)
_ENCRYPTED = re.compile(rb"-----BEGIN ENCRYPTED PRIVATE KEY-----|^Proc-Type: 4,ENCRYPTED", re.MULTILINE)
_PRIVATE_BLOCK = re.compile(rb"-----BEGIN ([A-Z ]*PRIVATE KEY)-----.*?-----END \1-----", re.DOTALL)


class PublicKey:
    """A key that verifies signatures.

    Args:
        key: as the library has it.
        where: what messages call it.

    Attributes:
        fingerprint: SHA-256 of its PEM form, hexadecimal.

    Raises:
        InputError: it is of a kind that is not used here.
    """

    def __init__(self, key: PublicKeyTypes, where: str) -> None:
        if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in _HASHES:
            raise InputError(
                f"{where} holds {_kind(key)}, but signatures are made with elliptic-curve keys on P-256, P-384 or "
                f"P-521; {_MAKE}"
            )
        self._key = key
        pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        self.fingerprint = hashlib.sha256(pem).hexdigest()

    def verifies(self, signature: bytes, signed: bytes) -> bool:
        """Return whether a signature over some bytes was made with its private half."""
        try:
            self._key.verify(signature, signed, ec.ECDSA(_HASHES[self._key.curve.name]))
        except InvalidSignature:
            return False
        return True


class PrivateKey:
    """A key that makes signatures.

    Args:
        key: as the library has it.
        public: its public half.
    """

    def __init__(self, key: ec.EllipticCurvePrivateKey, public: PublicKey) -> None:
        self.public = public
        self._key = key

    def sign(self, data: bytes) -> bytes:
        """Return the signature of some bytes, DER; another one each time."""
        return self._key.sign(data, ec.ECDSA(_HASHES[self._key.curve.name]))


def _kind(key: object) -> str:
    if isinstance(key, (rsa.RSAPublicKey, rsa.RSAPrivateKey)):
        return f"an RSA key of {key.key_size} bits"
    if isinstance(key, (ec.EllipticCurvePublicKey, ec.EllipticCurvePrivateKey)):
        return "an elliptic-curve key on another curve"
    return "a key of another kind"


def read_pem(path: Path) -> bytes:
    """Read a file of keys or certificates.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return read_small_file(path)
    except OSError as e:
        raise InputError(f"{path} cannot be read ({e.strerror}); give a PEM file") from e


def kinds_in(pem: bytes) -> list[str]:
    """Return what a PEM file holds, such as ``PUBLIC KEY``, in order."""
    return [kind.decode("ascii") for kind in _BEGIN.findall(pem)]


def parse_public_key(pem: bytes, path: Path) -> PublicKey:
    """Parse a public key.

    Raises:
        InputError: it cannot be parsed, or is of a kind that is not used here.
    """
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as e:
        raise InputError(f"{path} holds no public key that can be read; copy it again") from e
    return PublicKey(key, str(path))


def is_encrypted(path: Path) -> bool:
    """Return whether the private key in a file needs a password.

    Raises:
        InputError: it cannot be read.
    """
    return _ENCRYPTED.search(read_pem(path)) is not None


def read_private_key(path: Path, password: str | None = None) -> PrivateKey:
    """Read a private key.

    Args:
        path: a PEM file.
        password: of the key; None: it is not encrypted.

    Raises:
        InputError: it is no such key, or the password is wrong.
        UsageError: a password is missing, or given for a key that is not encrypted.
    """
    pem = read_pem(path)
    block = _PRIVATE_BLOCK.search(pem)  # the older form has the curve in a block before it
    if block is None:
        what = "a public key" if "PUBLIC KEY" in kinds_in(pem) else "no private key"
        raise InputError(f"{path} holds {what}; to sign, give the file with the private key")
    encrypted = _ENCRYPTED.search(pem) is not None
    if encrypted and password is None:
        raise UsageError(f"{path} is encrypted; give its {option('password')}")
    if password is not None and not encrypted:
        raise UsageError(f"{path} is not encrypted; leave {option('password')} out")
    try:
        secret = None if password is None else password.encode("utf-8")
        key = serialization.load_pem_private_key(block[0] + b"\n", secret)
    except (ValueError, TypeError, UnsupportedAlgorithm) as e:
        why = "the password is wrong" if encrypted else "it is damaged"
        raise InputError(f"{path} holds no private key that can be read: {why}") from e
    public = PublicKey(key.public_key(), str(path))  # which accepts no other kind
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return PrivateKey(key, public)
