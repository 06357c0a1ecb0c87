"""Who may sign, and whom an authority vouches for: each way in which a chain can be wrong."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

import pytest
from bundles import need

need("cryptography")
from cryptography import x509  # noqa: E402
from made_chains import BAD, GOOD, MIDDLE, ROOT  # noqa: E402
from made_keys import Made, certify, write_certificates  # noqa: E402

from vivit_export.bundle.signatures.certificates import (  # noqa: E402
    Certificate,
    parse_certificates,
    parse_chain,
    require_chain,
)
from vivit_export.errors import InputError, SignatureError  # noqa: E402

PATH = Path("b/model.sig")


def require(chain: list[Made], trusted: list[Made]) -> None:
    found = parse_chain([one.der for one in chain], PATH)
    require_chain(found, [Certificate(one.found, "ca.pem") for one in trusted], "ca.pem")


@pytest.mark.parametrize("case", GOOD)
def test_who_is_vouched_for_may_sign(case: str) -> None:
    require(*GOOD[case]())


@pytest.mark.parametrize("case", BAD)
def test_who_is_not_may_not(case: str) -> None:
    make, said = BAD[case]
    with pytest.raises(SignatureError, match=rf"^certificate 1 of b/model\.sig .*{said}"):
        require(*make())


def test_a_certificate_is_for_the_names_that_the_authority_vouches_for() -> None:
    """A common name is free text: it counts only where there is nothing else."""
    names = [
        x509.RFC822Name("me@example.com"),
        x509.DNSName("a.example"),
        x509.UniformResourceIdentifier("spiffe://x/y"),
    ]
    found = Certificate(certify("boss@example.com", names=names).found, "x")
    assert found.names == ("me@example.com", "a.example", "spiffe://x/y")
    assert found.title == "me@example.com"
    assert Certificate(certify("me").found, "x").names == ("me",)
    address = x509.IPAddress(ip_address("127.0.0.1"))
    assert Certificate(certify("me", names=[address]).found, "x").names == ("me",)


def test_files_of_certificates(tmp_path: Path) -> None:
    path = write_certificates(tmp_path / "ca.pem", ROOT, MIDDLE)
    assert [one.title for one in parse_certificates(path.read_bytes(), path)] == ["root", "middle"]
    damaged = path.read_bytes().replace(b"MII", b"MIX", 1)
    with pytest.raises(InputError, match=r"ca\.pem holds a certificate that cannot be read; copy it again"):
        parse_certificates(damaged, path)


@pytest.mark.parametrize("der", [b"x", b"\x30\x80", ROOT.der[:-1], ROOT.der + b"x"])
def test_what_is_no_certificate(der: bytes) -> None:
    with pytest.raises(SignatureError, match=r"^certificate 2 of b/model\.sig cannot be read; sign the bundle again$"):
        parse_chain([ROOT.der, der], PATH)
