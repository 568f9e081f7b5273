"""The connections that we make: over TLS by authorities that we trust, with certificates that are not revoked, and for no longer than they
would be made again.

Whom an operator allows no more, and whose certificate a new list may name, loses what is open at once: a line that nobody speaks on, a
message, a stream, and a socket that was handed to a thread. Python's `ssl` does not say which of the certificates that were believed a list
names, nor who vouched for them: with another list, or an authority less, all TLS connections are made anew; whoever is still good is back
by the next attempt.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import ssl
import stat
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import aiohttp
from aiohttp.connector import Connection
from aiohttp.tracing import Trace
from yarl import URL

from connector import telemetry
from connector.errors import ConnectorError, PeerFailed, SettingsError
from connector.lasting import OfFiles, revoke

DESCRIPTORS: Final = "/dev/fd"
KNOWN_MIN: Final = 64  # connections, before it is looked which of them are still there
# Why a certificate is not believed, by OpenSSL's number (x509_vfy.h), where it is not for want of an authority or of the name.
NOT_BELIEVED: Final = {
    3: "is by an authority of which `egress.crl_file` has no list: nobody can say whether it is revoked",
    8: "is by an authority that has not signed its list in `egress.crl_file`",
    9: "is not valid yet; compare the clocks of both sides",
    10: "has ended; its owner has to renew it",
    11: "is by an authority whose list in `egress.crl_file` does not count yet",
    12: "is by an authority whose list in `egress.crl_file` has ended; renew that file",
    23: "is revoked, or that of an authority of its chain is",
    62: "is for other names than that of this host",
    64: "is for other names than that of this host",
}

CERTIFICATE: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]*CERTIFICATE)-----(.+?)-----END \1-----", re.DOTALL)

Judge = Callable[[str, str], ConnectorError | None]


class Trust:
    """Our side of TLS, as its files are now. `renewed()` is called once other lists of revoked certificates count, or an authority does no
    more. Raises SettingsError as `client_tls`.

    Where no file of ours is in it, it is made when somebody is first dialled over TLS, and beside the loop: all authorities of a system are
    read for it, which takes as long as a tenth of a start.
    """

    def __init__(self, ca_file: Path | None, certificate: Path | None, key: Path | None, crl_file: Path | None) -> None:
        files = ca_file, certificate, key, crl_file
        self._crl_file, self._counting = crl_file, weakref.WeakSet[ssl.SSLContext]()
        self.renewed: Callable[[], None] = lambda: None

        def make() -> ssl.SSLContext:
            self._loading = authorities(ca_file)  # ahead of OpenSSL: one that is taken away in between is missed at the next look
            context = client_tls(*files)
            self._counting.add(context)
            return context

        def opened() -> OfFiles[ssl.SSLContext]:
            made = OfFiles("egress.certificate", named, make, self._changed)
            self._vouching = self._loading
            return made

        named = [each for each in files if each is not None]
        self._opened, self._opening = opened, asyncio.Lock()
        self._files = opened() if named else None

    async def of(self, where: str) -> ssl.SSLContext | bool:
        """The context of connections to an origin from now on; for one without TLS it is True, which is what aiohttp calls none of ours."""
        if not where.startswith("https:"):
            return True
        files = self._files
        if files is None:
            async with self._opening:
                if (files := self._files) is None:
                    self._files = files = await asyncio.to_thread(self._opened)
        return files.now()

    def renew(self) -> bool:
        """See `OfFiles.renew`."""
        return self._files is not None and self._files.renew()

    def counts(self, context: ssl.SSLContext) -> bool:
        """Whether those who were believed under this context would still be vouched for, and looked for in the same lists."""
        return context in self._counting

    def _changed(self, context: ssl.SSLContext, others: frozenset[Path]) -> None:
        before, self._vouching = self._vouching, self._loading
        if self._crl_file in others or before - self._vouching:
            self._counting = weakref.WeakSet((context,))
            self.renewed()


class Dialled(aiohttp.TCPConnector):
    """Makes connections, and knows those that are open. `judge(where, host)` says why an origin that has led to the address `host` is
    dialled no more, or None."""

    def __init__(self, judge: Judge, trust: Trust, **options: Any) -> None:
        super().__init__(**options)
        self._judge, self._trust = judge, trust
        # Where it was meant to go, where it goes, by the number of its socket, which copies of that have, too.
        self._known: dict[int, tuple[str, tuple[Any, ...], ssl.SSLContext | None, weakref.ref[asyncio.Transport]]] = {}
        self._many = KNOWN_MIN

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp has it so
    ) -> Connection:
        """See aiohttp. Raises EgressDenied, PeerFailed if it would be made no more: that may have changed while it was made."""
        connection = await super().connect(req, traces, timeout)
        transport = connection.transport
        if transport is None or transport.is_closing() or (there := transport.get_extra_info("peername")) is None:
            return connection  # the other end is gone already: whoever writes to it finds out
        where = str(req.url.origin())
        tls = transport.get_extra_info("sslcontext")
        if (why := self._ends(where, there, tls)) is not None:
            transport.abort()
            connection.close()
            raise why
        self._known[os.fstat(transport.get_extra_info("socket").fileno()).st_ino] = where, there, tls, weakref.ref(transport)
        if len(self._known) > self._many:
            open_ = _sockets()
            self._known = {number: known for number, known in self._known.items() if number in open_}
            self._many = max(KNOWN_MIN, 2 * len(self._known))
        return connection

    def end_idle(self, where: str) -> None:
        """Close the connections to an origin over which nothing goes at the moment."""
        url = URL(where)
        for key, left in self._conns.items():
            if (key.host, key.port, key.is_ssl) == (url.raw_host, url.port, url.scheme == "https"):
                for protocol, _ in left:
                    protocol.close()

    def look_again(self) -> None:
        """End what would not be made now, and say why."""
        open_ = _sockets()
        for number, (where, there, tls, known) in tuple(self._known.items()):
            transport = known()
            if number in open_ and (why := self._ends(where, there, tls)) is not None:
                telemetry.log.warning("connection ended", to=where, reason=why.message)
                if transport is not None and not transport.is_closing():  # Python before 3.11.4 aborts none that was closed twice
                    transport.abort()
                for descriptor in open_[number]:
                    _shut(descriptor, number, there)

    def _ends(self, where: str, there: tuple[Any, ...], tls: ssl.SSLContext | None) -> ConnectorError | None:
        """Why this connection would not be made now."""
        if tls is not None and not self._trust.counts(tls):
            why = "trusted authorities or lists of revoked certificates have changed since it was dialled"
            return PeerFailed(f"`{where}` is asked anew who it is: {why}")
        return self._judge(where, str(there[0]))


def client_tls(ca_file: Path | None, certificate: Path | None, key: Path | None, crl_file: Path | None) -> ssl.SSLContext:
    """Our side of TLS, 1.2 or later: whom we trust, and what we show. With lists of revoked certificates nobody is believed whose chain has
    one that is listed, or an authority without a list that counts now. Raises SettingsError for files that cannot be used."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(("http/1.1",))
    if ca_file is not None:
        try:
            context.load_verify_locations(cafile=ca_file)
        except OSError as error:
            raise SettingsError(
                f"`egress.ca_file` is `{ca_file}`, which is not a PEM file of certificates ({error.strerror}); give one, or leave it empty"
            ) from None
    if crl_file is not None and (why := revoke(context, crl_file)) is not None:
        raise SettingsError(
            f"`egress.crl_file` is `{crl_file}`, which is not a PEM file of lists of revoked certificates: {why};"
            " give a list by each authority of those whom we dial, or leave it empty"
        )
    if certificate is not None:
        try:
            context.load_cert_chain(certificate, key, password=_nobody_types)
        except (OSError, ValueError) as error:
            raise SettingsError(
                f"`egress.certificate` is `{certificate}`, which cannot be used with `egress.key`: {error}; give a pair in PEM"
            ) from None
    return context


def authorities(ca_file: Path | None) -> frozenset[bytes]:
    """The certificates of a PEM file, none if it cannot be read: another spelling of one is another."""
    try:
        text = ca_file.read_bytes() if ca_file is not None else b""
    except OSError:
        return frozenset()
    return frozenset(body for _, body in CERTIFICATE.findall(text))


def not_believed(where: str, error: BaseException) -> PeerFailed:
    """What is said of a certificate that was refused with this error."""
    why = NOT_BELIEVED.get(getattr(error, "verify_code", 0), "is not by an authority that we trust; `egress.ca_file` names further ones")
    return PeerFailed(f"the TLS certificate of `{where}` {why}")


def _nobody_types() -> str:
    raise ValueError("the key is encrypted, and nobody is there to type a password")


def _sockets() -> dict[int, list[int]]:
    """The sockets that are open in this process, by their numbers, with all descriptors of each."""
    found: dict[int, list[int]] = {}
    for descriptor in map(int, os.listdir(DESCRIPTORS)):
        with suppress(OSError):  # closed by now, such as that of the folder itself
            seen = os.fstat(descriptor)
            if stat.S_ISSOCK(seen.st_mode):
                found.setdefault(seen.st_ino, []).append(descriptor)
    return found


def _shut(descriptor: int, number: int, there: tuple[Any, ...]) -> None:
    """End what goes over the socket with this number to that address, whoever holds it; not what has its descriptor or number by now."""
    with suppress(OSError):  # it was closed meanwhile, or by the peer
        copy = os.dup(descriptor)
        try:
            if os.fstat(copy).st_ino == number:
                with socket.socket(fileno=os.dup(copy)) as held:
                    if held.getpeername() == there:
                        held.shutdown(socket.SHUT_RDWR)
        finally:
            os.close(copy)
