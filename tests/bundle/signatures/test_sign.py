"""Signing a bundle, and verifying the whole of it."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from bundles import need
from console import tree

need("cryptography")
from made_chains import MIDDLE, ROOT  # noqa: E402
from made_keys import (  # noqa: E402
    certify,
    digests_of,
    make_key,
    write_certificates,
    write_pair,
    write_private,
    write_public,
)
from unprivileged import run_python  # noqa: E402

from vivit_export.bundle import read_bundle, write_manifest  # noqa: E402
from vivit_export.bundle.signatures.sign import sign_bundle, verify_bundle  # noqa: E402
from vivit_export.errors import (  # noqa: E402
    BundleError,
    InputError,
    OutputError,
    SignatureError,
    UsageError,
)


@pytest.fixture
def keys(home: Path) -> Path:
    """The home of a bundle ``old``, with ``signer.pem`` and ``signer.pub``."""
    write_pair(home)
    return home


@pytest.mark.parametrize("curve", ["P-256", "P-384", "P-521"])
def test_what_is_signed_is_verified(home: Path, curve: str) -> None:
    private, public = write_pair(home, curve=curve)
    before = tree(home / "old")
    signer = sign_bundle(home / "old", private)
    assert verify_bundle(home / "old", public) == signer
    assert signer.files == digests_of(home / "old")
    assert {name: data for name, data in tree(home / "old").items() if name != "model.sig"} == before
    assert stat.S_IMODE((home / "old/model.sig").stat().st_mode) == 0o666 & ~_umask()
    manifest = json.loads((home / "old/bundle.json").read_text())
    assert "model.sig" not in manifest["files"]


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_certificates_travel_with_the_signature(keys: Path) -> None:
    me = certify("me", MIDDLE)
    private = write_private(me.key, keys / "me.pem", "word")
    own, between = write_certificates(keys / "own.pem", me), write_certificates(keys / "between.pem", MIDDLE)
    ca = write_certificates(keys / "ca.pem", ROOT)
    signer = sign_bundle(keys / "old", private, password="word", certificates=[own, between])
    assert signer.names == ("me",)
    assert verify_bundle(keys / "old", ca, identity="me") == signer
    whole = write_certificates(keys / "whole.pem", me, MIDDLE)
    sign_bundle(keys / "old", private, password="word", certificates=whole, force=True)
    assert verify_bundle(keys / "old", ca) == signer


def test_certificates_that_nobody_could_verify_are_refused_at_once(keys: Path) -> None:
    me, other = certify("me", ROOT), certify("other", ROOT)
    private = write_private(me.key, keys / "me.pem")
    before = tree(keys / "old")
    cases = {
        "is not the certificate of .*me.pem; give the signer's first": [other],
        "is not the certificate of .*me.pem; give the signer's": [
            ROOT.__class__(certify("x", signs=True).found, ROOT.key)
        ],
        "is valid from .* which is not now": [certify("me", ROOT, key=me.key, days=(-9, -1))],
        "is not for signatures: its usage lacks digitalSignature": [certify("me", ROOT, key=me.key, signs=False)],
    }
    for said, chain in cases.items():
        with pytest.raises(InputError, match=said):
            sign_bundle(keys / "old", private, certificates=write_certificates(keys / "x.pem", *chain))
    with pytest.raises(InputError, match=r"signer\.pub does not hold certificates and nothing else; give a PEM"):
        sign_bundle(keys / "old", private, certificates=keys / "signer.pub")
    with pytest.raises(UsageError, match="certificates: 9 are more than the 8 of a signature"):
        sign_bundle(keys / "old", private, certificates=write_certificates(keys / "x.pem", *[me] * 9))
    assert tree(keys / "old") == before


def test_a_signature_is_replaced_only_if_asked(keys: Path) -> None:
    sign_bundle(keys / "old", keys / "signer.pem")
    before = tree(keys)
    with pytest.raises(OutputError, match=r"model\.sig exists; pass force to replace that file"):
        sign_bundle(keys / "old", keys / "signer.pem")
    assert tree(keys) == before
    other, public = write_pair(keys, "other")
    sign_bundle(keys / "old", other, force=True)
    assert verify_bundle(keys / "old", public)


def test_a_link_in_the_place_of_the_signature_is_not_followed(keys: Path) -> None:
    """Whoever made the bundle would choose which file of the signer is replaced."""
    (keys / "old/model.sig").symlink_to(keys / "notes.txt")
    for force in (False, True):
        with pytest.raises(OutputError, match=r"model\.sig is a link, which is not followed to write a signature"):
            sign_bundle(keys / "old", keys / "signer.pem", force=force)
    assert (keys / "notes.txt").read_text() == "mine"


def test_what_is_damaged_or_not_all_listed_is_not_signed(keys: Path) -> None:
    (keys / "old/notes.txt").touch()
    with pytest.raises(BundleError, match=r"old/notes\.txt is not listed in bundle\.json, so nothing vouches for it"):
        sign_bundle(keys / "old", keys / "signer.pem")
    (keys / "old/notes.txt").unlink()
    (keys / "old/model.onnx").write_bytes(b"grape")
    with pytest.raises(BundleError, match=r"model\.onnx is not the file that bundle\.json describes"):
        sign_bundle(keys / "old", keys / "signer.pem")
    assert not (keys / "old/model.sig").exists()


def test_the_bundle_that_was_looked_at_is_the_one_that_is_signed(keys: Path) -> None:
    seen = read_bundle(keys / "old")
    (keys / "old/model.onnx").write_bytes(b"grape")
    write_manifest(keys / "old", seen.manifest.content)
    with pytest.raises(BundleError, match="old was changed since it was read; read it again"):
        sign_bundle(seen, keys / "signer.pem")
    assert sign_bundle(read_bundle(keys / "old"), keys / "signer.pem")


def test_mistakes_are_told_before_anything_is_read(keys: Path, tmp_path: Path) -> None:
    secret = write_private(make_key(), keys / "secret.pem", "word")
    with pytest.raises(UsageError, match=r"secret\.pem is encrypted; give its password"):
        sign_bundle(keys / "nowhere", secret)
    with pytest.raises(BundleError, match="nowhere is not a folder"):
        sign_bundle(keys / "nowhere", keys / "signer.pem")
    with pytest.raises(UsageError, match="key must be a path, got int"):
        sign_bundle(keys / "old", 5)  # type: ignore[arg-type]


def test_a_folder_that_cannot_be_written_is_one_sentence(keys: Path) -> None:
    (keys / "old").chmod(0o555)
    code = f"""
from vivit_export.bundle.signatures.sign import sign_bundle
from vivit_export.errors import OutputError
try:
    sign_bundle({str(keys / "old")!r}, {str(keys / "signer.pem")!r})
except OutputError as e:
    print(e)
"""
    done = run_python("-c", code)
    assert "model.sig cannot be written" in done.stdout, done.stderr
    assert not (keys / "old/model.sig").exists()


def test_verifying_needs_somebody_to_trust(keys: Path) -> None:
    sign_bundle(keys / "old", keys / "signer.pem")
    with pytest.raises(UsageError, match="require_signature says whom you trust; name a public key or certificates"):
        verify_bundle(keys / "old")


def test_the_environment_says_whom_to_trust(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sign_bundle(keys / "old", keys / "signer.pem")
    monkeypatch.setenv("VIVIT_REQUIRE_SIGNATURE", str(keys / "signer.pub"))
    assert verify_bundle(keys / "old")


def test_a_whole_bundle_is_verified(keys: Path) -> None:
    bundle = keys / "old"
    sign_bundle(bundle, keys / "signer.pem")
    other = write_public(make_key(), keys / "other.pub")
    with pytest.raises(SignatureError, match=r"not made with the key of .*other\.pub"):
        verify_bundle(bundle, other)
    (bundle / "notes.txt").touch()
    with pytest.raises(BundleError, match=r"notes\.txt is not listed"):
        verify_bundle(bundle, keys / "signer.pub")
    (bundle / "notes.txt").unlink()
    (bundle / "golden.safetensors").write_bytes(b"clops")
    with pytest.raises(BundleError, match=r"golden\.safetensors is not the file that bundle\.json describes"):
        verify_bundle(bundle, keys / "signer.pub")
    write_manifest(bundle, read_bundle(bundle, verify=False).manifest.content)
    with pytest.raises(SignatureError, match=r"does not sign this bundle\.json: the bundle was changed after it was"):
        verify_bundle(bundle, keys / "signer.pub")
