"""Verify who signed a bundle: what was read of it, not what lies in its folder later."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vivit_export.bundle.names import SIGNATURE
from vivit_export.bundle.reading import Bundle
from vivit_export.bundle.signatures.envelope import (
    AGAIN,
    Envelope,
    parse_envelope,
    read_small_file,
    signed_bytes,
)
from vivit_export.bundle.signatures.statement import parse_statement, require_statement_on
from vivit_export.bundle.signatures.trust import Files, Trust, trust_of, trust_of_environment
from vivit_export.errors import BundleError, InputError, MissingDependencyError, SignatureError
from vivit_export.printing import one_line


@dataclass(frozen=True, slots=True)
class Signer:
    """Who signed a bundle, verified.

    Attributes:
        key: fingerprint of the key: SHA-256 of its PEM form, hexadecimal.
        names: names in the signer's certificate; none for a bare key.
        files: SHA-256 of every file that is signed, by name, ``bundle.json`` included.
    """

    key: str
    names: tuple[str, ...]
    files: Mapping[str, str]

    @property
    def title(self) -> str:
        """Who it is, for people, on one line."""
        key = f"key {self.key[:16]}…"
        return f"{one_line(self.names[0])} ({key})" if self.names else key


def read_signature(folder: Path) -> bytes | None:
    """Return the bytes of a bundle's signature; None: it is not signed.

    Raises:
        SignatureError: it cannot be read, or is too large.
    """
    path = folder / SIGNATURE
    try:
        return read_small_file(path)
    except FileNotFoundError:
        if path.is_symlink():  # to nothing
            raise SignatureError(f"{path} leads to nothing; {AGAIN}") from None
        return None
    except OSError as e:
        raise SignatureError(f"{path} cannot be read: {e.strerror}; copy the bundle again") from e
    except InputError as e:
        raise SignatureError(str(e)) from e


def verify_signature(bundle: Bundle, trust: Trust) -> Signer:
    """Verify that somebody trusted signed what was read of a bundle.

    Args:
        bundle: as `read_bundle` returned it; whoever uses its files takes them from `Bundle.read`.
        trust: whom to trust.

    Raises:
        SignatureError: it is not signed, its signature was altered or is of another bundle, or it was made by somebody
            else.
    """
    data = read_signature(bundle.path)
    if data is None:
        raise SignatureError(
            f"{bundle.path} is not signed: it has no {SIGNATURE}; sign it with: vivit sign {bundle.path} --key FILE"
        )
    path = bundle.path / SIGNATURE
    signer = verify_bytes(data, trust, path)
    files = {name: file.sha256 for name, file in bundle.manifest.files.items()}
    require_statement_on(signer.files, bundle.manifest_sha256, files, path)
    return signer


def verify_bytes(data: bytes, trust: Trust, path: Path) -> Signer:
    """Verify who made a signature; what it is of is for the caller to compare.

    Args:
        data: bytes of the file.
        trust: whom to trust.
        path: the file, for messages.

    Raises:
        SignatureError: it was altered, or made by somebody else.
    """
    envelope = parse_envelope(data, path)
    signed = signed_bytes(envelope.payload)
    for key in trust.keys:
        if key.verifies(envelope.signature, signed):
            return Signer(key.fingerprint, (), parse_statement(envelope.payload, path))
    if not trust.certificates or not envelope.certificates:
        raise SignatureError(f"{path} {_why_not(envelope, trust)}")
    return _verify_certificate(envelope, trust, signed, path)


def _why_not(envelope: Envelope, trust: Trust) -> str:
    if trust.keys and envelope.certificates:
        return f"was made with a certificate, and not with the key of {trust.source}"
    if trust.keys:
        return f"was not made with the key of {trust.source}, or was altered since"
    return f"was made with a key, but {trust.source} holds certificates; give the signer's public key"


def _verify_certificate(envelope: Envelope, trust: Trust, signed: bytes, path: Path) -> Signer:
    from vivit_export.bundle.signatures.certificates import parse_chain, require_chain

    chain = parse_chain(envelope.certificates, path)
    require_chain(chain, trust.certificates, trust.source)
    signer = chain[0]
    if trust.identity is not None and trust.identity not in signer.names:
        names = ", ".join(signer.names) or "no name"
        raise SignatureError(f"{path} was made by {names}, not by {trust.identity}")
    if not signer.public_key.verifies(envelope.signature, signed):
        raise SignatureError(
            f"{path} was not made with the key of {signer.where} ({signer.title}), or was altered since"
        )
    return Signer(signer.public_key.fingerprint, signer.names, parse_statement(envelope.payload, path))


def require_signature(bundle: Bundle, files: Files | None = None, identity: str | None = None) -> Signer | None:
    """Refuse a bundle that is not signed by whom the environment names, or by whom the caller names.

    Args:
        bundle: as `read_bundle` returned it.
        files: PEM files with public keys or certificates; None: the caller requires no signature.
        identity: name that the signer's certificate must have.

    Returns:
        Who signed it; None: no signature is required.

    Raises:
        SignatureError: see `verify_signature`.
        UsageError, InputError, MissingDependencyError: see `vivit_export.bundle.signatures.trust`.
    """
    named = [trust for trust in (trust_of_environment(), trust_of(files, identity)) if trust is not None]
    signers = [verify_signature(bundle, trust) for trust in named]
    return signers[-1] if signers else None


def signature_text(bundle: Bundle) -> str | None:
    """Return what a bundle's signature claims, for people; it is not verified, as nobody said whom to trust.

    None: the bundle is not signed.
    """
    path = bundle.path / SIGNATURE
    try:
        data = read_signature(bundle.path)
        if data is None:
            return None
        envelope = parse_envelope(data, path)
        files = {name: file.sha256 for name, file in bundle.manifest.files.items()}
        require_statement_on(parse_statement(envelope.payload, path), bundle.manifest_sha256, files, path)
        who = _claimed(envelope, path)
    except BundleError as e:
        return f"does not hold: {e}"
    return f"{who}, not verified; verify it with: vivit verify {bundle.path} --key FILE (or --certificate FILE)"


def _claimed(envelope: Envelope, path: Path) -> str:
    if not envelope.certificates:
        return "by a key"
    try:
        from vivit_export.bundle.signatures.certificates import parse_chain
    except MissingDependencyError:
        return "by a certificate"
    return f"by the certificate of {parse_chain(envelope.certificates, path)[0].title}"
