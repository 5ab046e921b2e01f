"""Detect a URL that leads back to this process: the runtime must not scrape itself."""

from __future__ import annotations

import socket
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

__all__ = ["points_back"]

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


def points_back(url: str, host: str, port: int) -> bool:
    """Tell whether `url` is an address on which a socket bound to `host` and `port` listens.

    When `host` is a wildcard, every address of this machine counts: localhost,
    127.0.0.1, ::1 and the pod's own. A name that does not resolve now does not
    count; the runtime still recognises its own scrape by a header.
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
    except (OSError, UnicodeError):  # UnicodeError: a part of the name is empty or too long
        return set()
    return {_plain(str(entry[4][0])) for entry in found}


def _plain(text: str) -> str:
    """Return an address without its scope (fe80::1%eth0), and a mapped IPv4 address (::ffff:127.0.0.1) as IPv4."""
    address = ip_address(text.partition("%")[0])
    return str(getattr(address, "ipv4_mapped", None) or address)


def _is_local(address: str) -> bool:
    """Tell whether an address belongs to this machine: the system binds a socket to no other."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True
