"""X.509 certificates of signers, and the chain from one to a certificate that the verifier trusts.

The chain is verified by the library, after RFC 5280 with the rules of the web's certificates for authorities. What is
checked here is what those rules leave open: what the signer's own certificate may be used for, and whose it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from vivit_export.bundle.signatures.keys import PublicKey
from vivit_export.errors import InputError, SignatureError
from vivit_export.limits import MOST_CERTIFICATES
from vivit_export.packages import naming_the_extra

with naming_the_extra():
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import Encoding
    from cryptography.x509 import verification
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_Extension = TypeVar("_Extension", bound=x509.ExtensionType)
_UNREADABLE = (
    *(ValueError, UnsupportedAlgorithm),
    *(x509.DuplicateExtension, x509.InvalidVersion, x509.UnsupportedGeneralNameType),
)


class Certificate:
    """A certificate.

    Args:
        found: as the library has it.
        where: what messages call it.

    Raises:
        InputError: its extensions cannot be read.
    """

    def __init__(self, found: x509.Certificate, where: str) -> None:
        self.found, self.where = found, where
        try:
            self._extensions = found.extensions
            self._names = tuple(self._alternative_names()) or tuple(_common_names(found))
        except _UNREADABLE as e:
            raise InputError(f"{where} is a certificate that cannot be read") from e

    @cached_property
    def der(self) -> bytes:
        """Its bytes."""
        return self.found.public_bytes(Encoding.DER)

    @property
    def names(self) -> tuple[str, ...]:
        """The addresses, URIs and hosts that it is for; its common names if there are none."""
        return self._names

    @property
    def title(self) -> str:
        """Whose it is, for people."""
        return self._names[0] if self._names else "a certificate without a name"

    @cached_property
    def public_key(self) -> PublicKey:
        """Its key.

        Raises:
            InputError: it is of a kind that is not used for signatures.
        """
        try:
            return PublicKey(self.found.public_key(), self.where)
        except _UNREADABLE as e:
            raise InputError(f"{self.where} is a certificate that cannot be read") from e

    def require_signer(self, now: datetime) -> None:
        """Refuse a certificate that must not sign a bundle now.

        Raises:
            InputError: says why.
        """
        self.public_key  # noqa: B018 - raises
        begin, end = self.found.not_valid_before_utc, self.found.not_valid_after_utc
        if not begin <= now <= end:
            raise InputError(
                f"{self.where} ({self.title}) is valid from {_date(begin)} to {_date(end)}, which is not now; "
                "sign with one that is"
            )
        usage = self._extension(x509.KeyUsage)
        if usage is None or not usage.digital_signature:
            raise InputError(f"{self.where} ({self.title}) is not for signatures: its usage lacks digitalSignature")
        purposes = self._extension(x509.ExtendedKeyUsage)
        if purposes is not None and ExtendedKeyUsageOID.CODE_SIGNING not in purposes:
            raise InputError(f"{self.where} ({self.title}) is not for signatures: its purposes lack codeSigning")

    @property
    def is_authority(self) -> bool:
        """Whether it may issue others."""
        constraints = self._extension(x509.BasicConstraints)
        return constraints is not None and constraints.ca

    def _alternative_names(self) -> Iterator[str]:
        for name in self._extension(x509.SubjectAlternativeName) or ():
            if isinstance(name, (x509.RFC822Name, x509.UniformResourceIdentifier, x509.DNSName)):
                yield name.value

    def _extension(self, kind: type[_Extension]) -> _Extension | None:
        try:
            return self._extensions.get_extension_for_class(kind).value
        except x509.ExtensionNotFound:
            return None


def _common_names(found: x509.Certificate) -> Iterator[str]:
    for attribute in found.subject.get_attributes_for_oid(NameOID.COMMON_NAME):
        if isinstance(attribute.value, str):
            yield attribute.value


def _date(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")


def parse_certificates(pem: bytes, path: Path) -> tuple[Certificate, ...]:
    """Parse all certificates of a PEM file.

    Raises:
        InputError: one cannot be parsed.
    """
    try:
        return tuple(Certificate(found, str(path)) for found in x509.load_pem_x509_certificates(pem))
    except _UNREADABLE as e:
        raise InputError(f"{path} holds a certificate that cannot be read; copy it again") from e


def parse_chain(ders: Sequence[bytes], path: Path) -> tuple[Certificate, ...]:
    """Parse the certificates of a signature.

    Raises:
        SignatureError: one cannot be parsed.
    """
    chain = []
    for number, der in enumerate(ders, 1):
        where = f"certificate {number} of {path}"
        try:
            chain.append(Certificate(x509.load_der_x509_certificate(der), where))
        except (*_UNREADABLE, InputError) as e:
            raise SignatureError(f"{where} cannot be read; sign the bundle again") from e
    return tuple(chain)


def require_chain(chain: Sequence[Certificate], trusted: Sequence[Certificate], source: str) -> None:
    """Refuse a signer whom nobody vouches for that the verifier trusts.

    Args:
        chain: the signer's certificate, and those of authorities.
        trusted: the signer's own, or those of authorities.
        source: where the latter are from, for messages.

    Raises:
        SignatureError: the signer's certificate is not to be used now, or no chain leads to a trusted one.
    """
    signer, *others = chain
    now = datetime.now(timezone.utc)
    try:
        signer.require_signer(now)
    except InputError as e:
        raise SignatureError(str(e)) from e
    if any(signer.der == one.der for one in trusted):
        return
    if signer.is_authority:
        raise SignatureError(
            f"{signer.where} ({signer.title}) is the certificate of an authority, which does not sign bundles itself"
        )
    policy = verification.PolicyBuilder().store(verification.Store([one.found for one in trusted]))
    policy = policy.time(now).max_chain_depth(MOST_CERTIFICATES)
    policy = policy.extension_policies(
        ca_policy=verification.ExtensionPolicy.webpki_defaults_ca(),
        ee_policy=verification.ExtensionPolicy.permit_all(),  # `require_signer` has checked it
    )
    try:
        policy.build_client_verifier().verify(signer.found, [one.found for one in others])
    except (verification.VerificationError, *_UNREADABLE) as e:
        raise SignatureError(
            f"{signer.where} ({signer.title}) is not vouched for by {source}: no chain leads there of certificates "
            "that are valid now, of authorities, and strong enough"
        ) from e
