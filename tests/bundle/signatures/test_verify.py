"""Who signed a bundle: what was read of it, whatever lies in its folder later."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bundles import need

need("cryptography")
from cryptography import x509  # noqa: E402
from made_chains import GOOD, ROOT  # noqa: E402
from made_keys import (  # noqa: E402
    Made,
    certify,
    digests_of,
    make_key,
    sign_statement,
    statement,
    write_certificates,
    write_public,
    write_signature,
)

from vivit_export.bundle import read_bundle  # noqa: E402
from vivit_export.bundle.signatures.trust import read_trust  # noqa: E402
from vivit_export.bundle.signatures.verify import (  # noqa: E402
    require_signature,
    signature_text,
    verify_signature,
)
from vivit_export.errors import SignatureError, UsageError  # noqa: E402

KEY = make_key()


@pytest.fixture
def signed(home: Path) -> Path:
    """A bundle with a signature that was not made by the code that is tested, and ``key.pub`` beside it."""
    write_signature(home / "old", sign_statement(KEY, statement(digests_of(home / "old"))))
    write_public(KEY, home / "key.pub")
    return home / "old"


def certified(home: Path, chain: list[Made], trusted: list[Made]) -> Path:
    """The same with a certificate, and ``ca.pem``."""
    write_signature(home / "old", sign_statement(chain[0].key, statement(digests_of(home / "old")), chain))
    return write_certificates(home / "ca.pem", *trusted)


def test_the_signer_is_told(signed: Path, home: Path) -> None:
    signer = require_signature(read_bundle(signed), home / "key.pub")
    assert signer is not None
    assert signer.files == digests_of(signed)
    assert (signer.names, signer.title) == ((), f"key {signer.key[:16]}…")
    assert require_signature(read_bundle(signed)) is None


@pytest.mark.parametrize("case", GOOD)
def test_the_name_in_the_certificate_is_told(home: Path, case: str) -> None:
    chain, trusted = GOOD[case]()
    ca = certified(home, chain, trusted)
    signer = verify_signature(read_bundle(home / "old"), read_trust(ca, "me"))
    assert signer.names == ("me",) and signer.title == f"me (key {signer.key[:16]}…)"
    with pytest.raises(SignatureError, match=r"model\.sig was made by me, not by you$"):
        verify_signature(read_bundle(home / "old"), read_trust(ca, "you"))


@pytest.mark.parametrize("name", ["me@example.com", "a.example", "boss"])
def test_only_names_that_the_authority_vouches_for_are_identities(home: Path, name: str) -> None:
    names = [x509.RFC822Name("me@example.com"), x509.DNSName("a.example")]
    ca = certified(home, [certify("boss", ROOT, names=names)], [ROOT])
    if name != "boss":
        assert verify_signature(read_bundle(home / "old"), read_trust(ca, name)).names[0] == "me@example.com"
        return
    with pytest.raises(SignatureError, match=r"was made by me@example\.com, a\.example, not by boss$"):
        verify_signature(read_bundle(home / "old"), read_trust(ca, name))


def test_one_of_several_is_enough(signed: Path, home: Path) -> None:
    others = [write_public(make_key(), home / f"{i}.pub") for i in range(2)]
    bundle = read_bundle(signed)
    assert verify_signature(bundle, read_trust([*others, home / "key.pub"])).names == ()
    said = r"model\.sig was not made with the key of .*0\.pub, .*1\.pub, or was altered since$"
    with pytest.raises(SignatureError, match=said):
        verify_signature(bundle, read_trust(others))


def test_a_key_is_trusted_whatever_certificate_comes_with_it(home: Path) -> None:
    signer = certify("me", ROOT)
    ca = certified(home, [signer], [ROOT])
    key = write_public(signer.key, home / "key.pub")
    assert verify_signature(read_bundle(home / "old"), read_trust(key)).names == ()
    other = write_public(make_key(), home / "other.pub")
    assert verify_signature(read_bundle(home / "old"), read_trust([other, ca])).names == ("me",)
    with pytest.raises(SignatureError, match=r"was made with a certificate, and not with the key of .*other\.pub$"):
        verify_signature(read_bundle(home / "old"), read_trust(other))


def test_a_certificate_does_not_verify_a_bare_key(signed: Path, home: Path) -> None:
    ca = write_certificates(home / "ca.pem", certify("me", key=KEY))
    said = r"was made with a key, but .*ca\.pem holds certificates; give the signer's public key$"
    with pytest.raises(SignatureError, match=said):
        verify_signature(read_bundle(signed), read_trust(ca))


def test_a_certificate_of_somebody_else(home: Path) -> None:
    signer, other = certify("me", ROOT), certify("you", ROOT)
    made = sign_statement(other.key, statement(digests_of(home / "old")), [signer])
    write_signature(home / "old", made)
    ca = write_certificates(home / "ca.pem", ROOT)
    said = r"model\.sig was not made with the key of certificate 1 of .*model\.sig \(me\), or was altered since$"
    with pytest.raises(SignatureError, match=said):
        verify_signature(read_bundle(home / "old"), read_trust(ca))


def test_an_unsigned_bundle(home: Path) -> None:
    key = write_public(KEY, home / "key.pub")
    said = rf"^{home}/old is not signed: it has no model\.sig; sign it with: vivit sign {home}/old --key FILE$"
    with pytest.raises(SignatureError, match=said):
        verify_signature(read_bundle(home / "old"), read_trust(key))
    assert require_signature(read_bundle(home / "old")) is None


def lose_field(path: Path) -> None:
    made: dict[str, Any] = json.loads(path.read_text())
    del made["dsseEnvelope"]
    path.write_text(json.dumps(made))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: path.write_bytes(b"{"), "cannot be read as JSON"),
        (lose_field, r"signature lacks the field 'dsseEnvelope'; it is incomplete; sign the bundle again"),
        (
            lambda path: (path.unlink(), path.mkdir()),
            "cannot be read: it is a folder, not a file; copy the bundle",
        ),
        (lambda path: (path.unlink(), path.symlink_to("nowhere")), "leads to nothing; sign the bundle again"),
        (lambda path: path.write_bytes(b" " * (5 << 20)), "is larger than 4 MiB"),
    ],
)
def test_a_damaged_signature(signed: Path, home: Path, damage: Callable[[Path], object], said: str) -> None:
    damage(signed / "model.sig")
    with pytest.raises(SignatureError, match=rf"model\.sig.* {said}") as refused:
        verify_signature(read_bundle(signed), read_trust(home / "key.pub"))
    assert refused.value.exit_code == 3
    assert signature_text(read_bundle(signed)) == f"does not hold: {refused.value}"


def test_what_was_read_is_what_is_verified(signed: Path, home: Path) -> None:
    """A folder that is replaced after it was read does not matter, before the signature is verified or after."""
    bundle, trust = read_bundle(signed), read_trust(home / "key.pub")
    manifest = (signed / "bundle.json").read_text()
    (signed / "bundle.json").write_text(manifest.replace("left", "loft"))
    assert verify_signature(bundle, trust)
    with pytest.raises(SignatureError, match=r"does not sign this bundle\.json"):
        verify_signature(read_bundle(signed), trust)
    altered = dataclasses.replace(bundle, manifest_sha256="")
    with pytest.raises(SignatureError, match=r"does not sign this bundle\.json"):
        verify_signature(altered, trust)


def test_the_environment_holds_in_any_case(signed: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = write_public(make_key(), home / "other.pub")
    bundle = read_bundle(signed)
    monkeypatch.setenv("VIVIT_REQUIRE_SIGNATURE", str(home / "key.pub"))
    assert require_signature(bundle) and require_signature(bundle, home / "key.pub")
    with pytest.raises(SignatureError, match=r"not made with the key of .*other\.pub"):
        require_signature(bundle, other)
    monkeypatch.setenv("VIVIT_REQUIRE_SIGNATURE", str(other))
    for files in (None, home / "key.pub"):
        with pytest.raises(SignatureError, match=r"not made with the key of .*other\.pub"):
            require_signature(bundle, files)
    monkeypatch.setenv("VIVIT_REQUIRE_SIGNATURE", "")
    with pytest.raises(UsageError, match="is empty"):
        require_signature(bundle, home / "key.pub")


def test_what_is_claimed_is_told_as_a_claim(signed: Path, home: Path) -> None:
    later = f", not verified; verify it with: vivit verify {signed} --key FILE (or --certificate FILE)"
    assert signature_text(read_bundle(signed)) == f"by a key{later}"
    certified(home, [certify("me", ROOT)], [ROOT])
    assert signature_text(read_bundle(signed)) == f"by the certificate of me{later}"
    (signed / "bundle.json").write_text((signed / "bundle.json").read_text().replace("left", "loft"))
    told = signature_text(read_bundle(signed)) or ""
    assert told.startswith(f"does not hold: {signed}/model.sig does not sign this bundle")
    (signed / "model.sig").unlink()
    assert signature_text(read_bundle(signed)) is None
