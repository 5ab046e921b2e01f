"""Whether a URL leads back to this very process."""

from __future__ import annotations

import socket
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

__all__ = ["points_back"]

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


def points_back(url: str, host: str, port: int) -> bool:
    """Tell whether `url` is the address on which `host` and `port` listen.

    Every address of this machine counts when the host is a wildcard: localhost,
    127.0.0.1, ::1 and the pod's own.
    A name that does not resolve now does not count.
    """
    parts = urlsplit(url)
    if (parts.port or _DEFAULT_PORTS.get(parts.scheme)) != port or not parts.hostname:
        return False
    listening = _addresses(host)
    everywhere = any(ip_address(address).is_unspecified for address in listening)
    for address in _addresses(parts.hostname):
        if ip_address(address).is_unspecified or (everywhere and _is_local(address)) or address in listening:
            return True
    return False


def _addresses(host: str) -> set[str]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):  # UnicodeError: an empty or too long label
        return set()
    return {_plain(str(entry[4][0])) for entry in found}


def _plain(text: str) -> str:
    """Return an address without its scope (fe80::1%eth0), and an IPv4 one as such (::ffff:127.0.0.1)."""
    address = ip_address(text.partition("%")[0])
    return str(getattr(address, "ipv4_mapped", None) or address)


def _is_local(address: str) -> bool:
    """Only an address of this machine can be bound."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True
