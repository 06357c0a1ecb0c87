"""OpenSSF's own tool verifies what is signed here, and what it signs is verified here: an independent reference."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from bundles import need
from capabilities import missing

need("cryptography", "model_signing")
from made_chains import MIDDLE, ROOT  # noqa: E402
from made_keys import certify, write_certificates, write_pair, write_private  # noqa: E402

from vivit_export.bundle import read_bundle  # noqa: E402
from vivit_export.bundle.signatures.sign import sign_bundle, verify_bundle  # noqa: E402
from vivit_export.bundle.signatures.verify import require_signature  # noqa: E402
from vivit_export.errors import SignatureError  # noqa: E402

try:
    from model_signing import hashing, signing, verifying
except ImportError as e:  # its own dependencies do not name the lowest version of each other that works
    missing("model_signing", f"it cannot be imported: {e}")

CURVES = ["P-256", "P-384", "P-521"]


def signs(folder: Path, **how: Any) -> None:
    """Let the tool sign a folder, as its command does."""
    config = signing.Config()
    config = (
        config.use_certificate_signer(**how) if "signing_certificate" in how else config.use_elliptic_key_signer(**how)
    )
    ignored = hashing.Config().set_ignored_paths(paths=["model.sig"])
    config.set_hashing_config(ignored).sign(folder, folder / "model.sig")


def verifies(folder: Path, **how: Any) -> None:
    """Let the tool verify a folder, as its command does."""
    config = verifying.Config()
    use = config.use_elliptic_key_verifier if "public_key" in how else config.use_certificate_verifier
    use(**how).verify(folder, folder / "model.sig")


def test_its_command_verifies_what_is_signed_here(home: Path) -> None:
    private, public = write_pair(home)
    sign_bundle(home / "old", private)
    command: list[str | Path] = [sys.executable, "-m", "model_signing", "verify", "key", home / "old"]
    command += ["--signature", home / "old/model.sig", "--public_key", public]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Verification succeeded" in done.stdout


@pytest.mark.parametrize("curve", CURVES)
def test_it_verifies_what_is_signed_here_with_a_key(home: Path, curve: str) -> None:
    private, public = write_pair(home, curve=curve)
    sign_bundle(home / "old", private)
    verifies(home / "old", public_key=public)
    (home / "old/notes.txt").touch()
    with pytest.raises(ValueError, match=r"Extra files .*notes\.txt"):
        verifies(home / "old", public_key=public)
    (home / "old/notes.txt").unlink()
    (home / "old/golden.safetensors").write_bytes(b"clops")
    with pytest.raises(ValueError, match=r"Hash mismatch for 'golden\.safetensors'"):
        verifies(home / "old", public_key=public)


@pytest.mark.parametrize("curve", CURVES)
def test_what_it_signs_with_a_key_is_verified_here(home: Path, curve: str) -> None:
    private, public = write_pair(home, curve=curve)
    signs(home / "old", private_key=private)
    signer = verify_bundle(home / "old", public)
    copy = Path(shutil.copytree(home / "old", home / "copy"))
    assert sign_bundle(copy, private, force=True) == signer


def test_both_write_the_same_but_for_the_order_of_keys(home: Path) -> None:
    private, _ = write_pair(home)

    def written() -> tuple[Any, Any]:
        made = json.loads((home / "old/model.sig").read_text())
        payload = json.loads(base64.b64decode(made["dsseEnvelope"].pop("payload")))
        made["dsseEnvelope"]["signatures"][0].pop("sig")
        payload["predicate"]["serialization"]["ignore_paths"].sort()
        return made, payload

    sign_bundle(home / "old", private)
    ours = written()
    signs(home / "old", private_key=private)
    assert written() == ours


def test_certificates_go_both_ways(home: Path) -> None:
    me = certify("me", MIDDLE)
    private = write_private(me.key, home / "me.pem")
    own, between = write_certificates(home / "own.pem", me), write_certificates(home / "between.pem", MIDDLE)
    ca = write_certificates(home / "ca.pem", ROOT)
    sign_bundle(home / "old", private, certificates=[own, between])
    verifies(home / "old", certificate_chain=[ca])
    ours = verify_bundle(home / "old", ca, identity="me")
    signs(home / "old", private_key=private, signing_certificate=own, certificate_chain=[between])
    assert verify_bundle(home / "old", ca, identity="me") == ours


def test_it_accepts_a_certificate_that_expired_and_we_do_not(home: Path) -> None:
    """It checks the chain as it was when the certificate began; the format demands that it is valid now."""
    root = certify("root", authority=True, days=(-20, 30))
    me = certify("me", root, days=(-10, -1))
    own, ca = write_certificates(home / "own.pem", me), write_certificates(home / "ca.pem", root)
    private = write_private(me.key, home / "me.pem")
    signs(home / "old", private_key=private, signing_certificate=own, certificate_chain=[ca])
    verifies(home / "old", certificate_chain=[ca])
    with pytest.raises(SignatureError, match="which is not now; sign with one that is"):
        verify_bundle(home / "old", ca)


def test_files_that_it_signs_beyond_the_bundle_are_no_harm(home: Path) -> None:
    private, public = write_pair(home)
    (home / "old/README.md").write_text("a model card")
    signs(home / "old", private_key=private)
    assert require_signature(read_bundle(home / "old"), public)


def test_shards_are_not_verified_here_and_that_is_said(home: Path) -> None:
    private, public = write_pair(home)
    config = hashing.Config().use_shard_serialization(shard_size=3).set_ignored_paths(paths=["model.sig"])
    signer = signing.Config().use_elliptic_key_signer(private_key=private).set_hashing_config(config)
    signer.sign(home / "old", home / "old/model.sig")
    with pytest.raises(SignatureError, match="it must have sha256 of files, got 'sha256' of 'shards'"):
        verify_bundle(home / "old", public)
