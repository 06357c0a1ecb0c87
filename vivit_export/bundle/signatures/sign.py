"""Sign a bundle, and verify a whole one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from vivit_export.arguments import paths
from vivit_export.bundle.names import MANIFEST, SIGNATURE
from vivit_export.bundle.reading import Bundle, folder_of, read_bundle
from vivit_export.bundle.signatures.envelope import Envelope, envelope_text, signed_bytes
from vivit_export.bundle.signatures.statement import statement_bytes
from vivit_export.bundle.signatures.trust import Files, Trust, trust_of, trust_of_environment
from vivit_export.bundle.signatures.unlisted import require_all_listed
from vivit_export.bundle.signatures.verify import Signer, verify_signature
from vivit_export.errors import BundleError, InputError, OutputError, UsageError, option
from vivit_export.files import as_path, writing_file
from vivit_export.hub import cached_address, require_not_cached
from vivit_export.leftovers import remove_leftovers
from vivit_export.limits import MOST_CERTIFICATES
from vivit_export.locking import locked
from vivit_export.progress import Progress, default_progress

if TYPE_CHECKING:
    from vivit_export.bundle.signatures.certificates import Certificate
    from vivit_export.bundle.signatures.keys import PrivateKey


def sign_bundle(
    bundle: Bundle | str | Path,
    key: str | Path,
    *,
    password: str | None = None,
    certificates: Files = (),
    force: bool = False,
    progress: Progress | None = None,
) -> Signer:
    """Sign a bundle: write ``model.sig`` into it, in the format of OpenSSF Model Signing 1.0.

    Args:
        bundle: a bundle or its folder; all its files are verified first.
        key: PEM file with the private key, on P-256, P-384 or P-521.
        password: of the key; None: it is not encrypted.
        certificates: PEM files with the signer's certificate and then those of authorities, up to one that verifiers
            trust; empty: verifiers must have the public key.
        force: replace a signature.
        progress: receives the stages.

    Returns:
        The signer.

    Raises:
        BundleError: the bundle is damaged, holds other files, or is not the one that was given.
        InputError: the key or a certificate cannot be used.
        UsageError: a password is missing or not needed.
        OutputError: it is signed already, or cannot be written.
        MissingDependencyError: the extra ``sign`` is not installed.
    """
    from vivit_export.bundle.signatures.keys import read_private_key

    progress = progress if progress is not None else default_progress()
    private = read_private_key(as_path(key, "key"), password)
    chain = _read_chain(certificates, private, str(key))
    folder = bundle.path if isinstance(bundle, Bundle) else as_path(bundle, "bundle")
    require_not_cached(folder)
    read_bundle(folder, verify=False)  # before it is waited for
    with locked(folder, progress.note):
        remove_leftovers(folder / SIGNATURE, progress.note)
        with progress.stage("verify the bundle"):
            found = read_bundle(folder)
            require_all_listed(found)
        if isinstance(bundle, Bundle) and bundle.manifest_sha256 != found.manifest_sha256:
            raise BundleError(f"{folder} was changed since it was read; read it again")
        with progress.stage("sign the bundle"):
            files = {MANIFEST: found.manifest_sha256, **{n: f.sha256 for n, f in found.manifest.files.items()}}
            name = Path(os.path.realpath(folder)).name.encode("utf-8", "replace").decode("utf-8") or "bundle"
            payload = statement_bytes(name, files)
            signature = private.sign(signed_bytes(payload))
            envelope = Envelope(payload, signature, tuple(one.der for one in chain))
            _write(folder / SIGNATURE, envelope_text(envelope, private.public.fingerprint), force)
    return Signer(private.public.fingerprint, chain[0].names if chain else (), files)


def _read_chain(files: Files, private: PrivateKey, key: str) -> Sequence[Certificate]:
    from vivit_export.bundle.signatures.certificates import parse_certificates
    from vivit_export.bundle.signatures.keys import kinds_in, read_pem

    chain: list[Certificate] = []
    for path in paths("certificates", files):
        pem = read_pem(path)
        if set(kinds_in(pem)) != {"CERTIFICATE"}:
            raise InputError(f"{path} does not hold certificates and nothing else; give a PEM file of them")
        chain += parse_certificates(pem, path)
    if not chain:
        return ()
    if len(chain) > MOST_CERTIFICATES:
        raise UsageError(f"{option('certificates')}: {len(chain)} are more than the {MOST_CERTIFICATES} of a signature")
    chain[0].require_signer(datetime.now(timezone.utc))
    if chain[0].public_key.fingerprint != private.public.fingerprint:
        raise InputError(
            f"{chain[0].where} ({chain[0].title}) is not the certificate of {key}; give the signer's first, then those "
            "of authorities"
        )
    return chain


def _write(path: Path, text: str, force: bool) -> None:
    if path.is_symlink():  # a bundle of others must not choose what is replaced
        raise OutputError(f"{path} is a link, which is not followed to write a signature; remove it first")
    with writing_file(path, force=force) as part:
        part.write_text(text, encoding="utf-8")


def verify_bundle(
    bundle: Bundle | str | Path, require_signature: Files | None = None, *, identity: str | None = None
) -> Signer:
    """Verify a whole bundle: who signed it, every file that it lists, and that there are no others.

    `vivit_export.open_session` with ``require_signature`` verifies the same of what it reads, and ignores other files.

    Args:
        bundle: a bundle or its folder.
        require_signature: PEM files with public keys, or with certificates of signers or of authorities, of whom one
            must have signed it; None: those of ``VIVIT_REQUIRE_SIGNATURE``.
        identity: name that the signer's certificate must have: an e-mail address, URI or host, or else the common name.

    Returns:
        Who signed it.

    Raises:
        SignatureError: it is not signed, or not by them, or was changed since.
        BundleError: the bundle is damaged, or holds other files.
        InputError: a key or certificate cannot be read.
        UsageError: nobody is named.
        MissingDependencyError: the extra ``sign`` is not installed.
    """
    trust = trust_of(require_signature, identity) or trust_of_environment()
    if trust is None:
        raise UsageError(f"{option('require_signature')} says whom you trust; name a public key or certificates")
    return verify_whole(bundle.path if isinstance(bundle, Bundle) else folder_of(bundle), trust)


def verify_whole(folder: Path, trust: Trust) -> Signer:
    """Do what `verify_bundle` does, for somebody who is trusted already.

    Raises:
        SignatureError, BundleError: as there.
    """
    found = read_bundle(folder)
    signer = verify_signature(found, trust)
    if cached_address(folder) is None:  # of what is on the hub, only what it lists is ever downloaded
        require_all_listed(found)
    return signer
