"""Keys in PEM files: which are accepted, and what is said of the others."""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bundles import need

need("cryptography")
from cryptography.hazmat.primitives import hashes, serialization  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa  # noqa: E402
from made_keys import CURVES, make_key, sign_bytes, write_pair, write_private, write_public  # noqa: E402

from vivit_export.bundle.signatures.keys import (  # noqa: E402
    is_encrypted,
    kinds_in,
    parse_public_key,
    read_pem,
    read_private_key,
)
from vivit_export.errors import InputError, UsageError  # noqa: E402

ONLY = "signatures are made with elliptic-curve keys on P-256, P-384 or P-521; make one with: openssl genpkey"
FOREIGN: dict[str, tuple[Callable[[], Any], str]] = {
    "RSA 1024": (lambda: rsa.generate_private_key(65537, 1024), "an RSA key of 1024 bits"),
    "RSA 3072": (lambda: rsa.generate_private_key(65537, 3072), "an RSA key of 3072 bits"),
    "Ed25519": (ed25519.Ed25519PrivateKey.generate, "a key of another kind"),
    "secp256k1": (lambda: ec.generate_private_key(ec.SECP256K1()), "an elliptic-curve key on another curve"),
    "P-224": (lambda: ec.generate_private_key(ec.SECP224R1()), "an elliptic-curve key on another curve"),
    "DSA": (lambda: dsa.generate_private_key(2048), "a key of another kind"),
}


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("traditional", [False, True])
@pytest.mark.parametrize("password", [None, "päss word"])
def test_a_private_key_signs_what_its_public_half_verifies(
    tmp_path: Path, curve: str, traditional: bool, password: str | None
) -> None:
    key = make_key(curve)
    path = write_private(key, tmp_path / "key.pem", password, traditional)
    assert is_encrypted(path) == (password is not None)
    private = read_private_key(path, password)
    public = parse_public_key(write_public(key, tmp_path / "key.pub").read_bytes(), tmp_path / "key.pub")
    assert public.fingerprint == private.public.fingerprint
    assert public.fingerprint == hashlib.sha256((tmp_path / "key.pub").read_bytes()).hexdigest()
    assert public.verifies(private.sign(b"data"), b"data")
    assert not public.verifies(private.sign(b"data"), b"date")
    assert public.verifies(sign_bytes(key, b"data"), b"data")


def test_the_curve_decides_the_hash(tmp_path: Path) -> None:
    """Nobody can offer a signature with a weaker one."""
    for curve in CURVES:
        key = make_key(curve)
        public = parse_public_key(write_public(key, tmp_path / "x").read_bytes(), tmp_path / "x")
        own = {"P-256": hashes.SHA256, "P-384": hashes.SHA384, "P-521": hashes.SHA512}[curve]
        for algorithm in (hashes.SHA224, hashes.SHA256, hashes.SHA384, hashes.SHA512):
            signature = sign_bytes(key, b"data", algorithm())
            assert public.verifies(signature, b"data") == (algorithm is own)


@pytest.mark.parametrize("signature", [b"", b"0", b"\x30\x06\x02\x01\x00\x02\x01\x00", b"\x30\x80", b"\xff" * 100])
def test_bytes_that_are_no_signature_verify_nothing(tmp_path: Path, signature: bytes) -> None:
    public = parse_public_key(write_public(make_key(), tmp_path / "x").read_bytes(), tmp_path / "x")
    assert not public.verifies(signature, b"data")


@pytest.mark.parametrize("kind", FOREIGN)
def test_keys_of_other_kinds_are_refused(tmp_path: Path, kind: str) -> None:
    make, said = FOREIGN[kind]
    key = make()
    private = write_private(key, tmp_path / "key.pem")
    public = write_public(key, tmp_path / "key.pub")
    with pytest.raises(InputError, match=f"key.pem holds {said}, but {ONLY}"):
        read_private_key(private)
    with pytest.raises(InputError, match=f"key.pub holds {said}, but {ONLY}"):
        parse_public_key(public.read_bytes(), public)


def test_passwords(tmp_path: Path) -> None:
    plain = write_private(make_key(), tmp_path / "plain.pem")
    secret = write_private(make_key(), tmp_path / "secret.pem", "right")
    with pytest.raises(UsageError, match=r"secret\.pem is encrypted; give its password$"):
        read_private_key(secret)
    for wrong in ("wrong", ""):
        with pytest.raises(InputError, match=r"secret\.pem holds no private key that can be read: the password is"):
            read_private_key(secret, wrong)
    with pytest.raises(UsageError, match=r"plain\.pem is not encrypted; leave password out"):
        read_private_key(plain, "right")


def test_the_older_form_that_openssl_writes_with_the_curve_before_it(tmp_path: Path) -> None:
    command = ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-out", "key.pem"]
    try:
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    assert kinds_in(read_pem(tmp_path / "key.pem")) == ["EC PARAMETERS", "EC PRIVATE KEY"]
    assert read_private_key(tmp_path / "key.pem").public.fingerprint


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "holds no private key; to sign, give the file with the private key"),
        (b"garbage", "holds no private key"),
        (
            b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            "holds no private key that can be read",
        ),
        (b"-----BEGIN PRIVATE KEY-----\n", "holds no private key; to sign"),
    ],
)
def test_what_is_no_private_key(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(InputError, match=f"x {said}"):
        read_private_key(tmp_path / "x")


def test_a_public_key_does_not_sign(tmp_path: Path) -> None:
    _, public = write_pair(tmp_path)
    with pytest.raises(InputError, match=r"signer\.pub holds a public key; to sign, give the file with the priv"):
        read_private_key(public)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, said in (("pipe", "it is a pipe, not a file"), ("nowhere", "No such file or directory"), (".", "folder")):
        with pytest.raises(InputError, match=rf"cannot be read \(.*{said}.*\); give a PEM file"):
            read_private_key(tmp_path / name)


def test_a_damaged_public_key(tmp_path: Path) -> None:
    pem = write_public(make_key(), tmp_path / "x").read_bytes()
    for damaged in (pem.replace(b"MFkw", b"MFkx"), pem[:60], b"-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n"):
        with pytest.raises(InputError, match="x holds no public key that can be read; copy it again"):
            parse_public_key(damaged, Path("x"))


def test_a_point_that_is_on_no_curve_is_no_key() -> None:
    key = make_key().public_key()
    der = bytearray(key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo))
    der[-1] ^= 1
    body = base64.encodebytes(bytes(der))
    pem = b"-----BEGIN PUBLIC KEY-----\n" + body + b"-----END PUBLIC KEY-----\n"
    with pytest.raises(InputError, match="holds no public key that can be read"):
        parse_public_key(pem, Path("x"))
