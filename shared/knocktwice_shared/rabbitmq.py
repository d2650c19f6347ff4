"""The URL of a RabbitMQ: ``amqp://user:password@host:5672/vhost``, or ``amqps://`` with TLS; more nodes after a ``;``.

kombu takes the options of TLS beside the URL, so they are taken out of it here.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

SCHEMES = ("amqp", "amqps")
#: The options of TLS that a URL may have, and what py-amqp calls them.
_TLS = {"ssl_ca_certs": "ca_certs", "ssl_certfile": "certfile", "ssl_keyfile": "keyfile"}


@dataclass(frozen=True, slots=True)
class RabbitMq:
    """The address of RabbitMQ.

    Attributes:
        url: without any query, as kombu takes it.
        tls: how TLS is spoken; ``None``: it is not.
    """

    url: str = field(repr=False)
    tls: dict[str, Any] | None


def carries(url: str) -> bool:
    """Whether a URL is that of a RabbitMQ."""
    return url.partition("://")[0] in SCHEMES


def parse(url: str) -> RabbitMq:
    """Return what a URL of RabbitMQ says. A query may stand behind any of its nodes.

    Args:
        url: its nodes are separated by semicolons, and all have one scheme. The query knows ``ssl_ca_certs``,
            ``ssl_certfile`` and ``ssl_keyfile``, each a file's path. Without ``ssl_ca_certs`` the server's certificate
            must be one that this machine trusts; it is always checked, name included.

    Raises:
        ValueError: it is not such a URL.
    """
    parts = [urlsplit(part) for part in url.split(";")]
    schemes = {part.scheme for part in parts}
    # Asking for a port that is none raises, too.
    if len(schemes) != 1 or not schemes <= set(SCHEMES) or any(not part.hostname or part.port == 0 for part in parts):
        raise ValueError("it is no URL of RabbitMQ's")
    asked = {name: values[0] for part in parts for name, values in parse_qs(part.query).items()}
    if asked.keys() - _TLS.keys() or (asked and schemes == {"amqp"}):
        raise ValueError("it has an option that is not known")
    bare = ";".join(part._replace(query="").geturl() for part in parts)
    if schemes == {"amqp"}:
        return RabbitMq(bare, None)
    # Without a name py-amqp does not compare the certificate's; None is replaced by the node's own.
    options = {_TLS[name]: value for name, value in asked.items()}
    return RabbitMq(bare, {"cert_reqs": ssl.CERT_REQUIRED, "server_hostname": None, **options})
