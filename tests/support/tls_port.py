"""TLS in front of a server that speaks none, with a certificate of a private authority."""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from support.relay import Relay

if TYPE_CHECKING:
    from pathlib import Path


class TlsPort(Relay):
    """A port of 127.0.0.1 that takes TLS and hands the bytes to a plain port.

    Args:
        folder: for the certificates; ``authority`` is the file of the private authority.
        behind: the plain port.
    """

    def __init__(self, folder: Path, behind: int) -> None:
        folder.mkdir()
        self.authority = folder / "authority.pem"
        self._identity = folder / "server.pem"
        self._certify()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._identity)
        super().__init__(lambda: asyncio.open_connection("127.0.0.1", behind), context)

    def _certify(self) -> None:
        """Make the authority and the server's certificate."""
        keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
        names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in ("authority", "server")]
        now = datetime.now(UTC)

        def signed(of: int, extension: x509.ExtensionType) -> x509.Certificate:
            draft = (
                x509.CertificateBuilder()
                .subject_name(names[of])
                .issuer_name(names[0])
                .public_key(keys[of].public_key())
            )
            draft = draft.serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(days=1))
            draft = draft.not_valid_after(now + timedelta(days=1)).add_extension(extension, critical=False)
            return draft.sign(keys[0], hashes.SHA256())

        authority = signed(0, x509.BasicConstraints(ca=True, path_length=None))
        server = signed(1, x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]))
        pem = serialization.Encoding.PEM
        self.authority.write_bytes(authority.public_bytes(pem))
        private = keys[1].private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        self._identity.write_bytes(private + server.public_bytes(pem))
