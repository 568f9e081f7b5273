"""Whom this connector dials: the guard on every outgoing connection.

Two checks. `check` judges the form of a URL, before anything happens. `socket` judges the address, at the last point before
`connect`: there a name has become numbers, so no spelling of an address, no redirect and no name that resolves differently
the second time gets around it. Public unicast addresses are dialled, others only if the operator has allowed their network.
What tunnels IPv4 through IPv6 is judged on both addresses: allowing a NAT64 prefix does not allow the network behind it.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any
from urllib.parse import urlsplit

from connector.errors import EgressDenied, SettingsError
from connector.origins import DEFAULT_PORTS, origin
from connector.values import Value

# tcp(7): a peer that is behind a network that was cut, and says nothing just then, is gone after a minute without an answer; and what lies
# between forgets no connection on which nothing comes for long, as that to a source that is quiet.
PROBES = ((socket.TCP_KEEPIDLE, 30), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 3))
Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# IANA IPv4 special-purpose registry, every row that is not globally reachable unicast, and clouds' metadata services.
DENIED_IPV4 = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this host
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT; also a metadata service
        "127.0.0.0/8",
        "169.254.0.0/16",  # link-local; also metadata services
        "168.63.129.16/32",  # a metadata service at a public address
        "172.16.0.0/12",
        "192.0.0.0/24",  # IETF protocol assignments; also a metadata service
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
)
# Of IPv6 only 2000::/3 is global unicast; loopback, mapped, NAT64 (64:ff9b::/96, 64:ff9b:1::/48), unique local, link-local,
# site-local, segment routing and multicast lie outside. Denied within:
GLOBAL_IPV6 = IPv6Network("2000::/3")
DENIED_IPV6 = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # IETF protocol assignments: Teredo (2001::/32), benchmarks, ORCHID
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4
        "3fff::/20",  # documentation
    )
)
NAT64 = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"))  # RFC 6052, RFC 8215: the last 32 bits are the IPv4 address
NUMERIC = re.compile(r"0x[0-9a-f]*|[0-9]+")  # the last label of a host that some readers take for an IPv4 address
IPV4_COMPATIBLE = IPv6Network("::/96")  # RFC 4291, 2.5.5.1, deprecated


class Denied(OSError):
    """What `socket` raises: an OSError, so that the next address of the same name is tried."""


class Guard(Value, eq=False):
    """`allow`: networks dialled although they are not public. `ports`: the ports dialled, empty for any. `http`: without TLS too."""

    allow: tuple[Network, ...] = ()
    http: bool = False
    ports: frozenset[int] = frozenset({443, 8443})

    def check(self, url: str) -> None:
        """Raise EgressDenied, naming the fault and the remedy, for a URL of a form that is not dialled. No name is looked up."""
        try:
            where = origin(url)
        except ValueError as error:
            raise EgressDenied(f"the address {error}") from None
        if "#" in url:
            raise EgressDenied(f"the address at `{where}` has a fragment; take it out")
        if problem := _problem(self, where):
            raise EgressDenied(problem)

    def permits(self, address: Address) -> bool:
        """Whether this address is dialled. Total, and the same for every spelling of an address."""
        return all(_is_public(layer) or any(layer in network for network in self.allow) for layer in layers(address))

    def socket(self, info: tuple[Any, ...]) -> socket.socket:
        """A new socket for an `addrinfo` tuple (`TCPConnector(socket_factory=...)`). Raises Denied for an address that is not dialled."""
        family, kind, protocol, _, (host, *_) = info
        address = _literal(str(host))
        if address is None or not self.permits(address):
            raise Denied("not an address that this connector dials")
        made = socket.socket(family, kind, protocol)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in PROBES:
            made.setsockopt(socket.IPPROTO_TCP, option, value)
        return made

    def ends(self, where: str, host: str) -> EgressDenied | None:
        """The error for a connection that is open if it would not be made now, else None: `where` is the origin that has led to the address
        `host`."""
        if problem := _problem(self, where):
            return EgressDenied(problem)
        address = _literal(host)
        return None if address is not None and self.permits(address) else EgressDenied(_not_public(where))

    def denial(self, url: str, error: BaseException) -> EgressDenied | None:
        """The error for a URL if connecting failed with `error` because all addresses of its host are refused, else None. It
        does not say which addresses: who named the host shall not learn what our resolver knows."""
        return EgressDenied(_not_public(origin(url))) if isinstance(error, Denied) else None


def guard(allow: Sequence[str], http: bool, ports: Iterable[int]) -> Guard:
    """The guard for the settings of `[egress]`. Raises SettingsError with every network that is none."""
    networks: list[Network] = []
    problems: list[str] = []
    for text in allow:
        try:
            networks.append(ip_network(text))
        except ValueError:
            problems.append(f"`egress.allow` has `{text}`, which is not a network; write it as 10.1.0.0/16, host bits zero")
    if problems:
        raise SettingsError("the networks that may be dialled cannot be read", tuple(problems))
    return Guard(tuple(networks), http, frozenset(ports))


def layers(address: Address) -> tuple[Address, ...]:
    """The addresses that a packet to `address` may reach: itself, and the IPv4 addresses that a tunnel would unwrap. A mapped
    address (::ffff:0:0/96) is only another spelling of its IPv4 address."""
    if isinstance(address, IPv4Address):
        return (address,)
    plain = IPv6Address(int(address))  # without a scope
    if plain.ipv4_mapped:
        return (plain.ipv4_mapped,)
    if plain.teredo:
        return (plain, *plain.teredo)
    if plain.sixtofour:
        return (plain, plain.sixtofour)
    if any(plain in network for network in NAT64) or (plain in IPV4_COMPATIBLE and int(plain) > 1):
        return (plain, IPv4Address(int(plain) & 0xFFFF_FFFF))
    return (plain,)


@lru_cache(maxsize=1024)  # a connector dials few origins again and again
def _problem(guard: Guard, where: str) -> str | None:
    """Why this origin is not dialled, as far as it can be told without looking up its name; else None."""
    parts = urlsplit(where)
    if parts.scheme == "http" and not guard.http:
        return f"`{where}` is without TLS; use https"
    port = parts.port or DEFAULT_PORTS[parts.scheme]
    if guard.ports and port not in guard.ports:
        return f"port {port} of `{where}` is not one that is dialled; an operator can add it to `egress.ports`"
    host = (parts.hostname or "").rstrip(".")
    literal = _literal(host)
    if literal is not None:
        return None if guard.permits(literal) else _not_public(where)
    if NUMERIC.fullmatch(host.rpartition(".")[2]):
        return f"`{where}` has a numeric host that is not an IP address; write four decimal numbers, or a name"
    return None


def _is_public(address: Address) -> bool:
    if isinstance(address, IPv4Address):
        return not any(address in network for network in DENIED_IPV4)
    return address in GLOBAL_IPV6 and not any(address in network for network in DENIED_IPV6)


def _literal(host: str) -> Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _not_public(where: str) -> str:
    return f"`{where}` is not at a public address; an operator who means it to be dialled can add its network to `egress.allow`"
