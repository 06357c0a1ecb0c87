"""Which servers are believed: those whose certificate an authority of this machine signed for their name.

FFmpeg checks certificates only on request, and then only against a file that it is given.
"""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from urllib.parse import urlsplit

from vivit_export.errors import ClipError

# Where Debian and Alpine, Red Hat, and BSD keep them, for a Python that was built to look elsewhere.
_USUAL = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")
_PORTS = {"https": 443, "rtsps": 322}


def authorities() -> str:
    """Return the file of the certificates of authorities, or "" if there is none and so no server is believed.

    It is ``SSL_CERT_FILE`` where that is set, else the machine's.
    """
    paths = ssl.get_default_verify_paths()
    return next((path for path in (paths.cafile, *_USUAL) if path and Path(path).is_file()), "")


def distrusted(name: str, problem: str) -> ClipError:
    """Refuse a server.

    Args:
        name: what messages call its address.
        problem: what is wrong with its certificate.
    """
    return ClipError(
        f"the certificate of {name} is not trusted ({problem}); check the address, or set SSL_CERT_FILE to a file with "
        "the certificate that you trust"
    )


def certificate_problem(address: str, timeout: float) -> str | None:
    """Connect once more to find out why a server is not believed.

    Args:
        address: of any kind.
        timeout: for the connection, in seconds.

    Returns:
        What is wrong with its certificate, or None if that is not the reason.
    """
    parts = urlsplit(address)
    if parts.scheme not in _PORTS:
        return None
    host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
    context = ssl.create_default_context(cafile=authorities() or None)
    try:
        with (
            socket.create_connection((host, port), timeout) as connected,
            context.wrap_socket(connected, server_hostname=host),
        ):
            return None
    except ssl.SSLCertVerificationError as e:
        return e.verify_message
    except OSError:
        return None
