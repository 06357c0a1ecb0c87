"""Chains of certificates that are right, or wrong in one way: (chain, trusted), and what is said of the wrong ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from made_keys import Made, certify, make_key

Chain = tuple[list[Made], list[Made]]

SIGN, SERVE = ExtendedKeyUsageOID.CODE_SIGNING, ExtendedKeyUsageOID.SERVER_AUTH
ROOT = certify("root", authority=True)
MIDDLE = certify("middle", ROOT, authority=True)
RSA = certify("root", key=rsa.generate_private_key(65537, 2048), authority=True)


def me(by: Made | None = ROOT, subject: str = "me", **how: Any) -> Made:
    return certify(subject, by, **how)


def alone(**how: Any) -> Chain:
    """A signer who is trusted itself."""
    signer = me(**how)
    return [signer], [signer]


def forged() -> Chain:
    """By somebody else with the name of the root."""
    return [me(certify("root", authority=True))], [ROOT]


def by_a_signer() -> Chain:
    signer = certify("signer", ROOT)
    return [me(signer), signer], [ROOT]


def between(**how: Any) -> Chain:
    """By an authority that the root vouches for."""
    middle = certify("middle", ROOT, **{"authority": True, **how})
    return [me(middle), middle], [ROOT]


def by_root(**how: Any) -> Chain:
    root = certify("root", **{"authority": True, **how})
    return [me(root)], [root]


def too_deep() -> Chain:
    root = certify("root", authority=True, depth=0)
    middle = certify("middle", root, authority=True)
    return [me(middle), middle], [root]


GOOD: dict[str, Callable[[], Chain]] = {
    "by a root": lambda: ([me()], [ROOT]),
    "by one between": lambda: ([me(MIDDLE), MIDDLE], [ROOT]),
    "with the root, too": lambda: ([me(MIDDLE), MIDDLE, ROOT], [ROOT]),
    "with another one": lambda: ([me(MIDDLE), RSA, MIDDLE], [ROOT]),
    "by one between that is trusted": lambda: ([me(MIDDLE)], [MIDDLE]),
    "by one of several": lambda: ([me()], [RSA, ROOT]),
    "by a root with an RSA key": lambda: ([me(RSA)], [RSA]),
    "for code": lambda: ([me(purposes=[SERVE, SIGN])], [ROOT]),
    "on P-521": lambda: ([me(key=make_key("P-521"))], [ROOT]),
    "itself": lambda: alone(by=None),
    "itself, as openssl makes it": lambda: alone(by=None, authority=True, signs=True),
    "itself, though an authority issued it": alone,
}

_PERIOD = r"is valid from .* UTC to .* UTC, which is not now; sign with one that is"
_USAGE = "is not for signatures: its usage lacks digitalSignature"
_CHAIN = "is not vouched for by .*: no chain leads there of certificates that are valid now, of authorities, and strong"
BAD: dict[str, tuple[Callable[[], Chain], str]] = {
    "expired": (lambda: ([me(days=(-10, -1))], [ROOT]), _PERIOD),
    "not yet valid": (lambda: ([me(days=(1, 2))], [ROOT]), _PERIOD),
    "expired, and trusted itself": (lambda: alone(by=None, days=(-10, -1)), _PERIOD),
    "itself, not trusted": (lambda: ([me(None)], [ROOT]), _CHAIN),
    "itself, with a trusted name": (lambda: ([certify("root")], [ROOT]), _CHAIN),
    "by nobody known": (lambda: ([me(RSA)], [ROOT]), _CHAIN),
    "by one between that is missing": (lambda: ([me(MIDDLE)], [ROOT]), _CHAIN),
    "by a root that only it brings": (lambda: ([me(RSA), RSA], [ROOT]), _CHAIN),
    "by another of the same name": (forged, _CHAIN),
    "by a signer": (by_a_signer, _CHAIN),
    "by one that does not say": (lambda: between(constraints=False), _CHAIN),
    "by one without a usage": (lambda: between(usage=False), _CHAIN),
    "by one that expired": (lambda: between(days=(-10, -1)), _CHAIN),
    "by one with a weak key": (lambda: between(key=rsa.generate_private_key(65537, 1024)), _CHAIN),
    "by one on another curve": (lambda: between(key=ec.generate_private_key(ec.SECP256K1())), _CHAIN),
    "by one with a key of another kind": (lambda: between(key=ed25519.Ed25519PrivateKey.generate()), _CHAIN),
    "by a root that expired": (lambda: by_root(days=(-10, -1)), _CHAIN),
    "by a root with a weak key": (lambda: by_root(key=rsa.generate_private_key(65537, 1024)), _CHAIN),
    "by a root without a usage": (lambda: by_root(usage=False), _CHAIN),
    "beyond the depth": (too_deep, _CHAIN),
    "an authority": (
        lambda: ([me(authority=True, signs=True)], [ROOT]),
        "is the certificate of an authority, which",
    ),
    "without a usage": (lambda: ([me(usage=False)], [ROOT]), _USAGE),
    "of another usage": (lambda: ([me(signs=False)], [ROOT]), _USAGE),
    "for servers": (lambda: ([me(purposes=[SERVE])], [ROOT]), "is not for signatures: its purposes lack codeSigning"),
    "with an RSA key": (
        lambda: ([me(key=rsa.generate_private_key(65537, 2048))], [ROOT]),
        "holds an RSA key of 2048 bits, but signatures are made with elliptic-curve keys on P-256, P-384 or P-521",
    ),
    "on another curve": (
        lambda: ([me(key=ec.generate_private_key(ec.SECP256K1()))], [ROOT]),
        "holds an elliptic-curve key on another curve, but signatures",
    ),
}
