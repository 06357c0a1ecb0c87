"""Addresses of served models."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivit_export.errors import UsageError
from vivit_export.runtime.session.triton.address import Address, is_address, parse_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("triton://gpu/vivit", Address("grpc", "gpu", 8001, "vivit")),
        ("triton+http://gpu/vivit", Address("http", "gpu", 8000, "vivit")),
        ("triton://10.0.0.1:9001/vivit/2", Address("grpc", "10.0.0.1", 9001, "vivit", "2")),
        ("triton://[::1]:9001/m", Address("grpc", "::1", 9001, "m")),
        (
            "triton://gpu/m?timeout=2.5&retries=0&shared_memory=yes",
            Address("grpc", "gpu", 8001, "m", timeout_seconds=2.5, retries=0, shared_memory=True),
        ),
        ("triton+grpcs://gpu/m", Address("grpc", "gpu", 443, "m", tls=True)),
        ("triton+https://gpu:8443/m?ca=/a%20b.pem", Address("http", "gpu", 8443, "m", tls=True, ca="/a b.pem")),
    ],
)
def test_what_an_address_says(text: str, address: Address) -> None:
    assert is_address(text)
    assert parse_address(text) == address


def test_an_ipv6_address_keeps_its_brackets() -> None:
    assert parse_address("triton://[::1]:9001/m").server == "[::1]:9001"


@pytest.mark.parametrize(
    "text",
    [
        *("triton://", "triton:///m", "triton://gpu", "triton://gpu/", "triton://gpu/m/1/2", "triton://gpu:x/m"),
        *("triton://gpu:99999/m", "triton://user@gpu/m", "triton://gpu/m#part", "triton://[::1/m"),
        *("triton://gpu/m?timeout=0", "triton://gpu/m?timeout=nan", "triton://gpu/m?retries=-1"),
        *("triton://gpu/m?shared_memory=maybe", "triton://gpu/m?speed=11", "triton://gpu/m?x"),
        *(
            "triton+grpc://gpu/m",
            "grpc://gpu/m",
            "grpcs://gpu:443/m",
            "triton://gpu/m?ca=x",
            "triton+https://gpu/m?ca=",
            "https://gpu/m",
            "http://gpu:8000/m",
        ),
    ],
)
def test_what_is_none(text: str) -> None:
    assert is_address(text)
    with pytest.raises(UsageError):
        parse_address(text)


@pytest.mark.parametrize("other", ["out/bundle", "triton", "/triton:/gpu", "C://x", Path("triton://gpu/m"), None])
def test_paths_are_paths(other: object) -> None:
    assert not is_address(other)


@given(st.text())
def test_any_text_is_an_address_or_a_usage_error(text: str) -> None:
    with suppress(UsageError):
        assert parse_address(f"triton://{text}").model
