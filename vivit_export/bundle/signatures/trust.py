"""Whom a verifier trusts: public keys and certificates, from files or from the environment."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vivit_export.arguments import paths
from vivit_export.errors import InputError, UsageError, option

if TYPE_CHECKING:
    from vivit_export.bundle.signatures.certificates import Certificate
    from vivit_export.bundle.signatures.keys import PublicKey

Files = str | Path | Sequence[str | Path]
"""A file, or several: with a public key, or with certificates, as PEM."""

FILES_VARIABLE = "VIVIT_REQUIRE_SIGNATURE"
"""Environment variable with files, ``:`` between them: every bundle that is opened must be signed by one of theirs."""
IDENTITY_VARIABLE = "VIVIT_REQUIRE_IDENTITY"
"""Environment variable with the name that the signer's certificate must have."""


@dataclass(frozen=True, slots=True)
class Trust:
    """Whom a verifier trusts.

    Attributes:
        source: the files, for messages.
        keys: public keys.
        certificates: certificates of signers, or of authorities that vouch for them.
        identity: name that the signer's certificate must have; None: any.
    """

    source: str
    keys: tuple[PublicKey, ...]
    certificates: tuple[Certificate, ...]
    identity: str | None = None


def read_trust(files: Files, identity: str | None = None) -> Trust:
    """Read files with keys and certificates.

    Args:
        files: one or several.
        identity: name that the signer's certificate must have.

    Raises:
        InputError: a file holds neither.
        UsageError: no file, something that is not a path, or an identity with a key, which has none.
        MissingDependencyError: the extra ``sign`` is not installed.
    """
    from vivit_export.bundle.signatures.certificates import parse_certificates
    from vivit_export.bundle.signatures.keys import kinds_in, parse_public_key, read_pem

    given = paths("require_signature", files)
    if not given:
        raise UsageError(f"{option('require_signature')} names no file; name one with a public key or certificates")
    keys: list[PublicKey] = []
    certificates: list[Certificate] = []
    for path in given:
        pem = read_pem(path)
        kinds = kinds_in(pem)
        if any("PRIVATE KEY" in kind for kind in kinds):
            raise InputError(
                f"{path} holds a private key, which only the signer may have; make the public one with: "
                f"openssl pkey -in {path} -pubout"
            )
        if kinds == ["PUBLIC KEY"]:
            keys.append(parse_public_key(pem, path))
        elif set(kinds) == {"CERTIFICATE"}:
            certificates += parse_certificates(pem, path)
        else:
            raise InputError(f"{path} holds neither one public key nor certificates; give a PEM file")
    source = ", ".join(map(str, given))
    if identity is not None and keys:
        raise UsageError(f"{option('identity')} is the name in a certificate, but {source} holds a key, which has none")
    return Trust(source, tuple(keys), tuple(certificates), identity)


def trust_of_environment() -> Trust | None:
    """Return whom this machine's environment trusts; None: it requires no signature.

    Raises:
        UsageError: a variable is set to nothing, or the identity alone.
        InputError, MissingDependencyError: see `read_trust`.
    """
    files, identity = os.environ.get(FILES_VARIABLE), os.environ.get(IDENTITY_VARIABLE)
    for variable, value in ((FILES_VARIABLE, files), (IDENTITY_VARIABLE, identity)):
        if value == "":
            raise UsageError(f"the environment variable {variable} is empty; give it a value, or unset it")
    if files is None and identity is not None:
        raise UsageError(f"the environment variable {IDENTITY_VARIABLE} is for {FILES_VARIABLE}; set both")
    return None if files is None else read_trust(files.split(os.pathsep), identity)


def trust_of(files: Files | None, identity: str | None) -> Trust | None:
    """Return whom a caller trusts; None: nobody is named.

    Raises:
        UsageError: an identity without files.
        InputError, MissingDependencyError: see `read_trust`.
    """
    if files is None and identity is not None:
        raise UsageError(f"{option('identity')} is for {option('require_signature')}; give both")
    return None if files is None else read_trust(files, identity)
