"""Connections with TLS, to a real server behind an endpoint on loopback: what is trusted, and what is not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from bundles import random_crops
from tls_proxy import make_certificate, tls_proxy
from triton_server import Served

import vivit_export as ve
from vivit_export.errors import EnvironmentFault, UsageError

pytestmark = pytest.mark.needs_onnxruntime

PROTOCOLS = {"grpc": "triton+grpcs", "http": "triton+https"}


class Secured(NamedTuple):
    """The port of each protocol with TLS, and the certificate."""

    ports: dict[str, int]
    certificate: Path

    def url(self, protocol: str, query: str = "", host: str = "127.0.0.1") -> str:
        return f"{PROTOCOLS[protocol]}://{host}:{self.ports[protocol]}/demo?timeout=20&retries=0{query}"


@pytest.fixture(scope="module")
def secured(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    certificate, key = make_certificate(tmp_path_factory.mktemp("tls"), "IP:127.0.0.1,DNS:localhost")
    of = served.server
    with tls_proxy(of.grpc, certificate, key) as grpc, tls_proxy(of.http, certificate, key) as http:
        yield Secured({"grpc": grpc, "http": http}, certificate)


@pytest.mark.parametrize("protocol", list(PROTOCOLS))
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_the_answer_is_the_same_with_tls(served: Served, secured: Secured, protocol: str, host: str) -> None:
    clips = random_crops(served.bundle, 3)
    with ve.open_session(served.server.url("demo", protocol)) as session:
        expected = session.infer(clips)
    with ve.open_session(secured.url(protocol, f"&ca={secured.certificate}", host)) as session:
        np.testing.assert_array_equal(session.infer(clips), expected)
        assert f"{host}:{secured.ports[protocol]} ({'gRPC, TLS' if protocol == 'grpc' else 'HTTPS'})" in session.details


@pytest.mark.parametrize("protocol", list(PROTOCOLS))
def test_the_authorities_of_the_machine_are_trusted(
    secured: Secured, monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(secured.certificate))
    with ve.open_session(secured.url(protocol)) as session:
        assert session.engine == "triton"


@pytest.mark.parametrize("protocol", list(PROTOCOLS))
def test_a_certificate_of_nobody_is_not_trusted(secured: Secured, protocol: str) -> None:
    said = r"the certificate of 127\.0\.0\.1:\d+ .* is not trusted \(.*self.signed.*\); .* authority with \?ca=FILE"
    with pytest.raises(EnvironmentFault, match=said) as caught:
        ve.open_session(secured.url(protocol))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("protocol", list(PROTOCOLS))
def test_a_certificate_for_another_name_is_not_trusted(served: Served, tmp_path: Path, protocol: str) -> None:
    certificate, key = make_certificate(tmp_path, "DNS:elsewhere.example")
    port = served.server.grpc if protocol == "grpc" else served.server.http
    with tls_proxy(port, certificate, key) as secured_port:
        url = f"{PROTOCOLS[protocol]}://127.0.0.1:{secured_port}/demo?timeout=20&retries=0&ca={certificate}"
        with pytest.raises(EnvironmentFault, match=r"the certificate of 127\.0\.0\.1:\d+ .* is not trusted"):
            ve.open_session(url)


@pytest.mark.parametrize("protocol", list(PROTOCOLS))
def test_a_port_without_tls_and_one_with_it(served: Served, secured: Secured, protocol: str) -> None:
    plain = served.server.grpc if protocol == "grpc" else served.server.http
    with pytest.raises(EnvironmentFault, match=f"no Triton server answers at 127.0.0.1:{plain} "):
        ve.open_session(f"{PROTOCOLS[protocol]}://127.0.0.1:{plain}/demo?timeout=10&ca={secured.certificate}")
    scheme = "triton" if protocol == "grpc" else "triton+http"
    with pytest.raises(EnvironmentFault, match=f"no Triton server answers at 127.0.0.1:{secured.ports[protocol]} "):
        ve.open_session(f"{scheme}://127.0.0.1:{secured.ports[protocol]}/demo?timeout=10")


@pytest.mark.parametrize("content", [None, b"no certificate", b""])
@pytest.mark.parametrize("protocol", list(PROTOCOLS))
def test_a_file_that_holds_no_authority(tmp_path: Path, protocol: str, content: bytes | None) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UsageError, match=r"ca=.*ca\.pem has no certificates that can be read \(.+\); give a PEM file"):
        ve.open_session(f"{PROTOCOLS[protocol]}://127.0.0.1:1/demo?ca={file}")


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_an_answer_to_another_request_is_not_taken(
    served: Served, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = random_crops(served.bundle, 1)
    with ve.open_session(served.server.url("demo", protocol, "?retries=1")) as session:
        client = session._backend._connection._client  # type: ignore[attr-defined]
        infer, ids = client.infer, list[str]()

        def mixed_up(*arguments: object, request_id: str) -> object:
            ids.append(request_id)
            return infer(*arguments, request_id=request_id if len(ids) == 3 else "of somebody else")

        monkeypatch.setattr(client, "infer", mixed_up)
        with pytest.raises(EnvironmentFault, match="it answered request 'of somebody else' in place of request '"):
            session.infer(clips)
        session.infer(clips)
    assert len(set(ids)) == 3
