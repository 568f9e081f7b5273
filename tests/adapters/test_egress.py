import socket
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.adapters.egress import PROBES, Denied, Guard, guard, layers
from connector.errors import EgressDenied, SettingsError

STRICT = Guard()
NAT64_LOOPBACK = "64:ff9b::7f00:1"

# fmt: off
REFUSED = [
    "0.0.0.0",  # noqa: S104 - refused, not listened on
    "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.255.254", "169.254.169.254", "168.63.129.16",
    "172.16.0.1", "172.31.255.255", "192.0.0.192", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1", "198.51.100.1",
    "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
    "::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:0:127.0.0.1", NAT64_LOOPBACK, "64:ff9b::808:808",
    "64:ff9b:1::7f00:1", "100::1", "2001::1", "2001:0:7f00:1::1", "2001:10::1", "2001:20::1", "2001:db8::1", "2002:7f00:1::1",
    "2002:808:808::1", "3fff::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%lo", "fec0::1", "ff02::1", "4000::1",
]
PUBLIC = [
    "8.8.8.8", "1.1.1.1", "100.63.255.255", "100.128.0.1", "172.15.0.1", "172.32.0.1", "192.0.1.1", "223.255.255.255",
    "::ffff:8.8.8.8", "2606:4700:4700::1111", "2a00:1450::1", "2400:3200::1", "2001:4860:4860::8888", "2003::1",
]
# fmt: on


@pytest.mark.parametrize("address", REFUSED)
def test_what_is_not_public_unicast_is_refused(address: str):
    assert not STRICT.permits(ip_address(address))


@pytest.mark.parametrize("address", PUBLIC)
def test_what_is_public_unicast_is_dialled(address: str):
    assert STRICT.permits(ip_address(address))


@given(st.ip_addresses(v=4))
def test_a_mapped_address_is_judged_like_the_one_it_spells(address):
    assert STRICT.permits(ip_address(f"::ffff:{address}")) == STRICT.permits(address)


@given(st.ip_addresses())
def test_nothing_that_the_standard_library_calls_private_is_dialled(address):
    if STRICT.permits(address):
        assert all(layer.is_global and not layer.is_multicast and not layer.is_reserved for layer in layers(address))


@given(st.ip_addresses())
def test_an_allowed_network_opens_itself_and_nothing_else(address):
    opened = guard(["10.1.0.0/16", "fd00:1::/32"], False, ())
    inside = any(layers(address)[0] in ip_network(network) for network in ("10.1.0.0/16", "fd00:1::/32"))
    assert opened.permits(address) == (STRICT.permits(address) or inside)


@pytest.mark.parametrize(
    ("allow", "address", "dialled"),
    [
        (["64:ff9b::/96"], "64:ff9b::808:808", True),
        (["64:ff9b::/96"], NAT64_LOOPBACK, False),
        (["64:ff9b::/96"], "64:ff9b::a9fe:a9fe", False),
        (["64:ff9b::/96", "127.0.0.0/8"], NAT64_LOOPBACK, True),
        (["127.0.0.0/8"], NAT64_LOOPBACK, False),
        (["2002::/16"], "2002:7f00:1::1", False),
        (["2002::/16"], "2002:808:808::1", True),
        (["2001::/32"], "2001:0:808:808::1", False),  # the client's address, inverted in the last bits, is reserved
        (["::/0"], "::7f00:1", False),
        (["::1/128"], "::1", True),
        (["127.0.0.0/8"], "::ffff:127.0.0.1", True),
    ],
)
def test_a_tunnel_is_judged_on_both_of_its_addresses(allow: list[str], address: str, dialled: bool):
    assert guard(allow, False, ()).permits(ip_address(address)) == dialled


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://peer.example/", "is without TLS; use https"),
        ("ftp://peer.example/", "does not begin with https"),
        ("file:///etc/passwd", "does not begin with https"),
        ("https://user:secret@peer.example/", "has a user name"),
        ("https://peer.example/#fragment", "has a fragment"),
        ("https://peer.example/#", "has a fragment"),
        ("https://peer.example:22/", "port 22 of `https://peer.example:22` is not one"),
        ("https://peer.example:6379/", "add it to `egress.ports`"),
        ("https://127.0.0.1/", "is not at a public address"),
        ("https://[::1]/", "is not at a public address"),
        ("https://[::ffff:127.0.0.1]/", "is not at a public address"),
        ("https://2130706433/", "numeric host"),
        ("https://0x7f000001/", "numeric host"),
        ("https://0177.0.0.1/", "numeric host"),
        ("https://127.1/", "numeric host"),
        ("https://peer.example/\r\nX: y", "characters"),
        ("https://" + "a" * 5000, "longer than"),
    ],
)
def test_the_form_of_a_url_is_judged_before_anything_happens(url: str, problem: str):
    with pytest.raises(EgressDenied) as caught:
        STRICT.check(url)
    assert problem in caught.value.message
    assert "secret" not in caught.value.message


@pytest.mark.parametrize(
    "url", ["https://peer.example/dsp", "https://PEER.example:8443/", "https://8.8.8.8/", "https://[2606:4700::1]/a?b=c"]
)
def test_a_public_https_url_passes(url: str):
    STRICT.check(url)


def test_settings_open_what_they_say():
    opened = guard(["127.0.0.0/8"], True, ())
    opened.check("http://127.0.0.1:18080/dsp")
    opened.check("http://localhost:1/")
    with pytest.raises(EgressDenied):
        opened.check("http://[::1]:18080/dsp")


def test_networks_that_are_none_are_reported_together():
    with pytest.raises(SettingsError) as caught:
        guard(["10.0.0.1/8", "10.0.0.0/8", "peer.example"], False, ())
    assert [reason.split(" ")[2] for reason in caught.value.reasons] == ["`10.0.0.1/8`,", "`peer.example`,"]


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "fe80::1%lo", "not-an-address"])
def test_no_socket_is_made_for_a_refused_address(address: str):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with pytest.raises(Denied):
        STRICT.socket((family, socket.SOCK_STREAM, 6, "", (address, 443)))


def test_a_socket_is_made_for_a_public_address():
    with STRICT.socket((socket.AF_INET, socket.SOCK_STREAM, 6, "", ("8.8.8.8", 443))) as made:
        assert (made.family, made.type) == (socket.AF_INET, socket.SOCK_STREAM)
        asks = made.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        told = [made.getsockopt(socket.IPPROTO_TCP, option) for option, _ in PROBES]
        assert (asks, told) == (1, [30, 10, 3]), "a source may be quiet for an hour, and one that is gone must not look like it"


def test_only_a_denial_is_called_one_and_it_does_not_say_which_address():
    assert STRICT.denial("https://peer.example/", OSError("refused")) is None
    denial = STRICT.denial("https://peer.example/", Denied("not an address that this connector dials"))
    assert denial is not None
    assert denial.message.startswith("`https://peer.example` is not at a public address")
