"""Stands in for FCM and Twilio and is too fast to be what is measured: nginx, one process, fixed answers.

It speaks TLS with HTTP/2 and HTTP/1.1 on one port, as the providers do, and answers with ids of its own for each
request. A second port answers as late as real providers: a push after 80 ms, an SMS after 150 ms.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from knocktwice_worker.embedded.children import Child
from knocktwice_worker.sandbox.accounts import ACCOUNT_SID, AUTH_TOKEN, SENDER, Accounts

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

#: What realistic providers take to answer.
PUSH_LATENCY_S, SMS_LATENCY_S = 0.08, 0.15

#: Where Debian's packages put it.
_MODULES = Path("/usr/lib/nginx/modules")

_CONFIGURATION = """
daemon off; worker_processes 1; pid {home}/nginx.pid; error_log {home}/nginx.log crit; {modules}
events {{ worker_connections 8192; }}
http {{
  access_log off; default_type application/json;
  keepalive_requests 1000000000; http2_max_concurrent_streams 256; client_body_buffer_size 64k;
  client_body_temp_path {home}/body; proxy_temp_path {home}/p; fastcgi_temp_path {home}/f; uwsgi_temp_path {home}/u;
  scgi_temp_path {home}/s; ssl_certificate {home}/cert.pem; ssl_certificate_key {home}/key.pem;
  server {{
    listen 127.0.0.1:{fast} ssl http2;
    location ~ messages:send$ {{ return 200 '{push}'; }}
    location ~ Messages.json$ {{ return 201 '{sms}'; }}
    location = /token {{ return 200 '{token}'; }}
  }}
  {slow_server}
}}
"""
_SLOW = """server {{
    listen 127.0.0.1:{slow} ssl http2;
    location ~ messages:send$ {{ echo_sleep {push_latency}; echo '{push}'; }}
    location ~ Messages.json$ {{ echo_sleep {sms_latency}; echo '{sms}'; }}
    location = /token {{ return 200 '{token}'; }}
  }}"""
_PUSH = '{"name":"projects/p/messages/$request_id"}'
_SMS = json.dumps({"sid": "SM$request_id", "status": "queued", "to": "+15005550001", "body": "", "error_code": None})
_TOKEN = json.dumps({"access_token": "ya29." + "x" * 200, "expires_in": 3600, "token_type": "Bearer"})


class Unavailable(Exception):
    """The provider's stand-in cannot run here; the text says what to install."""


@dataclass
class Provider:
    """nginx, from ``with`` to its end.

    Args:
        home: for its certificate and files.
    """

    home: Path

    def __enter__(self) -> Self:
        program = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/local/bin:/usr/bin:/opt/homebrew/bin")
        if program is None:
            raise Unavailable("nginx is not installed (on Debian and Ubuntu: apt install nginx-light)")
        self.home.mkdir(parents=True, exist_ok=True)
        self.certificate = self.home / "cert.pem"
        _write_certificate(self.certificate, self.home / "key.pem")
        echo = _MODULES / "ngx_http_echo_module.so"
        fast, slow = _free_port(), _free_port()
        texts = {"push": _PUSH, "sms": _SMS, "token": _TOKEN}
        slow_server = _SLOW.format(slow=slow, push_latency=PUSH_LATENCY_S, sms_latency=SMS_LATENCY_S, **texts)
        configuration = self.home / "nginx.conf"
        configuration.write_text(
            _CONFIGURATION.format(
                home=self.home,
                fast=fast,
                modules=f"load_module {echo};" if echo.exists() else "",
                slow_server=slow_server if echo.exists() else "",
                **texts,
            )
        )
        self.url = f"https://127.0.0.1:{fast}"
        self._slow_url = f"https://127.0.0.1:{slow}" if echo.exists() else None
        self._child = Child("nginx", [program, "-p", str(self.home), "-c", str(configuration)], self.home / "out.log")
        self._child.start()
        _wait_until_it_listens(fast, self._child)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._child.stop()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._child.pid

    @property
    def slow_url(self) -> str:
        """The address that answers as late as real providers.

        Raises:
            Unavailable: this nginx cannot wait.
        """
        if self._slow_url is None:
            raise Unavailable("nginx has no echo module (on Debian and Ubuntu: apt install libnginx-mod-http-echo)")
        return self._slow_url

    def environment(self, url: str) -> dict[str, str]:
        """Return what points a worker, or anything that uses ``requests`` or ``httpx``, here."""
        return {
            "KNOCKTWICE_FCM_URL": url,
            "GOOGLE_APPLICATION_CREDENTIALS": str(Accounts().write_service_account(self.home, url)),
            "TWILIO_ACCOUNT_SID": ACCOUNT_SID,
            "TWILIO_AUTH_TOKEN": AUTH_TOKEN,
            "KNOCKTWICE_TWILIO_FROM": SENDER,
            "KNOCKTWICE_TWILIO_URL": url,
            "BENCHMARK_CA": str(self.certificate),
            "REQUESTS_CA_BUNDLE": str(self.certificate),
            "SSL_CERT_FILE": str(self.certificate),
        }


def nginx_version() -> str:
    """Name the stand-in, for the report."""
    told = subprocess.run(["/usr/sbin/nginx", "-v"], capture_output=True, text=True, check=False).stderr
    return told.strip().rpartition(" ")[2]


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_it_listens(port: int, child: Child) -> None:
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if child.wait(timedelta(milliseconds=10)) is not None:
                raise Unavailable(f"nginx does not start: {child.log_tail()}") from None
        else:
            return


def _write_certificate(certificate: Path, key: Path) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=7))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(private, hashes.SHA256())
    )
    certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    key.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
