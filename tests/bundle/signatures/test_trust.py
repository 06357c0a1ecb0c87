"""Whom a verifier trusts: files that the caller or the environment names, and what is said of wrong ones."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from bundles import need

need("cryptography")
from made_keys import certify, make_key, write_certificates, write_pair, write_private  # noqa: E402

from vivit_export.bundle.signatures.trust import read_trust, trust_of, trust_of_environment  # noqa: E402
from vivit_export.errors import InputError, UsageError  # noqa: E402


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with keys of a signer and of an authority in it."""
    write_pair(tmp_path)
    write_pair(tmp_path, "other", "P-384")
    write_certificates(tmp_path / "ca.pem", certify("root", authority=True), certify("another", authority=True))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_keys_and_certificates_are_told_apart(place: Path) -> None:
    trust = read_trust(["signer.pub", place / "ca.pem", "other.pub"])
    assert (len(trust.keys), [one.title for one in trust.certificates]) == (2, ["root", "another"])
    assert trust.source == f"signer.pub, {place / 'ca.pem'}, other.pub"
    assert len(read_trust("signer.pub").keys) == len(read_trust(place / "signer.pub").keys) == 1
    assert read_trust("ca.pem", "me").identity == "me"


def test_a_private_key_is_not_for_verifiers(place: Path) -> None:
    write_private(make_key(), place / "secret.pem", "word")
    write_private(make_key(), place / "older.pem", traditional=True)
    for name in ("signer.pem", "secret.pem", "older.pem"):
        with pytest.raises(InputError, match=rf"^{name} holds a private key, .* openssl pkey -in {name} -pubout$"):
            read_trust(name)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"garbage",
        bytes(range(256)),
        b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n-----END PGP PUBLIC KEY BLOCK-----\n",
        b"ssh-ed25519 AAAA me@here\n",
        b" -----BEGIN PUBLIC KEY-----\n",
    ],
)
def test_what_is_neither(place: Path, content: bytes) -> None:
    Path("x").write_bytes(content)
    with pytest.raises(InputError, match=r"^x holds neither one public key nor certificates; give a PEM file$"):
        read_trust("x")


def test_a_mixture_is_neither(place: Path) -> None:
    key, certificate = (Path(name).read_bytes() for name in ("signer.pub", "ca.pem"))
    for content in (key + certificate, certificate + key, key + key):
        Path("x").write_bytes(content)
        with pytest.raises(InputError, match="x holds neither one public key nor certificates"):
            read_trust("x")


def test_what_cannot_be_read(place: Path) -> None:
    os.mkfifo("pipe")
    for name, said in (("pipe", "it is a pipe, not a file"), ("nowhere", "No such file or directory")):
        with pytest.raises(InputError, match=rf"^{name} cannot be read \({said}\); give a PEM file$"):
            read_trust(name)


def test_somebody_must_be_named(place: Path) -> None:
    with pytest.raises(UsageError, match="require_signature names no file; name one with a public key or certificates"):
        read_trust(())
    with pytest.raises(UsageError, match="require_signature must be a path, got int"):
        read_trust([5])  # type: ignore[list-item]
    assert trust_of(None, None) is None
    with pytest.raises(UsageError, match="identity is for require_signature; give both"):
        trust_of(None, "me")


def test_a_key_has_no_name(place: Path) -> None:
    said = r"^identity is the name in a certificate, but signer\.pub, ca\.pem holds a key, which has none$"
    with pytest.raises(UsageError, match=said):
        read_trust(["signer.pub", "ca.pem"], "me")


# --- the environment ---------------------------------------------------------------------------


def test_the_environment_names_files_and_a_name(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert trust_of_environment() is None
    monkeypatch.setenv("VIVIT_REQUIRE_SIGNATURE", "signer.pub:ca.pem")
    trust = trust_of_environment()
    assert trust is not None
    assert (len(trust.keys), len(trust.certificates), trust.identity) == (1, 2, None)
    monkeypatch.setenv("VIVIT_REQUIRE_SIGNATURE", "ca.pem")
    monkeypatch.setenv("VIVIT_REQUIRE_IDENTITY", "me")
    trust = trust_of_environment()
    assert trust is not None
    assert trust.identity == "me"


@pytest.mark.parametrize(
    ("files", "identity", "said"),
    [
        ("", None, "the environment variable VIVIT_REQUIRE_SIGNATURE is empty; give it a value, or unset it"),
        ("ca.pem", "", "the environment variable VIVIT_REQUIRE_IDENTITY is empty; give it a value, or unset it"),
        (None, "me", "the environment variable VIVIT_REQUIRE_IDENTITY is for VIVIT_REQUIRE_SIGNATURE; set both"),
        ("nowhere", None, r"nowhere cannot be read \(No such file or directory\); give a PEM file"),
        ("ca.pem:", None, r"\. cannot be read"),
    ],
)
def test_an_environment_that_says_nothing_clear_opens_nothing(
    place: Path, monkeypatch: pytest.MonkeyPatch, files: str | None, identity: str | None, said: str
) -> None:
    for variable, value in (("VIVIT_REQUIRE_SIGNATURE", files), ("VIVIT_REQUIRE_IDENTITY", identity)):
        if value is not None:
            monkeypatch.setenv(variable, value)
    with pytest.raises((UsageError, InputError), match=f"^{said}"):
        trust_of_environment()
