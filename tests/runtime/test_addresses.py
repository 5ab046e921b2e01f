"""Whether a base URL leads back to the runtime itself."""

from __future__ import annotations

import pytest

from exporter.addresses import points_back
from simulators.addresses import has_ipv6, own_addresses

pytestmark = pytest.mark.unit

EVERYWHERE = "0.0.0.0"
PORT = 9000

needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no ::1")


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://localhost:9000", EVERYWHERE),
        ("http://LOCALHOST:9000/metrics", EVERYWHERE),
        ("http://127.0.0.1:9000", EVERYWHERE),
        ("http://127.0.0.2:9000", EVERYWHERE),
        ("http://0.0.0.0:9000", EVERYWHERE),
        ("http://[::]:9000", EVERYWHERE),
        pytest.param("http://[::1]:9000", EVERYWHERE, marks=needs_ipv6),
        pytest.param("http://[::1]:9000", "::", marks=needs_ipv6),
        ("http://[::1]:9000", "::1"),
        ("http://[0:0::1]:9000", "::1"),
        ("http://127.0.0.1:9000", "127.0.0.1"),
        ("http://localhost:9000", "127.0.0.1"),
        ("http://127.1:9000", "127.0.0.1"),
        ("http://0.0.0.0:9000", "127.0.0.1"),
        ("http://127.0.0.1:9000", "localhost"),
    ],
)
def test_every_spelling_of_its_own_address_leads_back(url: str, host: str) -> None:
    """Names, short forms, wildcards, and any address when it listens on all."""
    assert points_back(url, host, PORT)


def test_the_machines_own_addresses_lead_back() -> None:
    """A pod's address is as good as localhost, but only when the runtime listens there."""
    own = own_addresses()
    if not own:
        pytest.skip("this machine has no address beyond loopback")
    for address in own:
        url = f"http://[{address}]:9000" if ":" in address else f"http://{address}:9000"

        assert points_back(url, EVERYWHERE, PORT)
        assert points_back(url, address, PORT)
        assert not points_back(url, "127.0.0.1", PORT)


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://localhost:8000", EVERYWHERE),
        ("http://localhost", EVERYWHERE),
        ("http://203.0.113.1:9000", EVERYWHERE),
        ("http://[2001:db8::1]:9000", "::"),
        ("http://127.0.0.2:9000", "127.0.0.1"),
        ("http://no-such-host.invalid:9000", EVERYWHERE),
        ("http://a..b:9000", EVERYWHERE),
        (f"http://{'a' * 64}:9000", EVERYWHERE),
        ("http://localhost:9000", "no-such-host.invalid"),
    ],
)
def test_other_ports_and_hosts_do_not(url: str, host: str) -> None:
    """Nor does a name that does not resolve now, or that cannot be one."""
    assert not points_back(url, host, PORT)


@pytest.mark.parametrize(("url", "port"), [("http://localhost", 80), ("https://localhost", 443)])
def test_a_url_without_a_port_has_its_schemes(url: str, port: int) -> None:
    """80 or 443."""
    assert points_back(url, EVERYWHERE, port)
    assert not points_back(url, EVERYWHERE, PORT)
