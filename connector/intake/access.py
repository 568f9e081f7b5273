"""The consumer's right to read one transfer: its data address with a token that is renewed before it ends.

Renewal is single-flight, and what it brought is handed on to be stored before it is used, so that a crash does not go back to
a token that has ended. A running body needs no new token; each new request does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import TypeVar
from urllib.parse import urlencode

import orjson

from connector import telemetry
from connector.dataplane.edr import is_token, read_address
from connector.dsp.answers import CLOCKS_APART, NOT_US, by_clocks
from connector.errors import ConnectorError, PeerFailed, PeerRefused
from connector.ports import Clock, Identity, Peer
from connector.records import Edr
from connector.values import replace

RENEW_AT = 0.8  # share of its life after which a token is renewed: leaves a fifth for slow answers and repeats
RETRY_SECONDS = 1.0  # after a renewal that failed, while the old token may still hold
PAUSE_SECONDS_MIN = 0.05
LIFE_DIGITS_MAX = 10
ANSWER_BYTES_MAX = 16 * 1024  # a token response has about 2 KiB
T = TypeVar("T")


class Access:
    """Access to one transfer of provider `provider` (participant id). `renewed(edr)` stores a renewed reference."""

    def __init__(
        self, edr: Edr, provider: str, *, peer: Peer, identity: Identity, clock: Clock, renewed: Callable[[Edr], Awaitable[None]]
    ) -> None:
        try:
            read = read_address(edr.address)
        except ValueError as error:
            raise PeerFailed(f"the data address of the provider cannot be used: {error}") from None
        self.endpoint = read.endpoint
        # Whether the token is the whole value of `Authorization`: the data plane of Eclipse EDC says `bearer` and takes it so only; None if
        # that has to be found out.
        self._alone = None if read.by_edc else False
        self._edr, self._provider = edr, provider
        self.peer, self._identity, self._clock, self._renewed = peer, identity, clock, renewed
        self._lock = asyncio.Lock()
        self.renewals = 0

    @property
    def renewable(self) -> bool:
        """Whether the provider said how to renew."""
        return self._edr.refresh_token is not None and self._edr.refresh_endpoint is not None

    async def token(self) -> str | None:
        """The token for a new request, renewed first if most of its life is over. None if the provider gave none.

        A renewal that fails does no harm while the token may still hold. Raises PeerRefused, PeerFailed if it does not.
        """
        token = self._edr.access_token
        if self.renewable and self._seconds_left() <= 0:
            try:
                await self.renew(token)
            except ConnectorError:
                if self._edr.expires is not None and self._edr.expires <= self._clock.now():
                    raise
        return self._edr.access_token

    async def renew(self, used: str | None) -> None:
        """Get another token than `used`, unless somebody just did. Raises PeerRefused if the provider refuses, PeerFailed."""
        async with self._lock:
            if self._edr.access_token != used:
                return
            edr = self._edr
            if edr.refresh_token is None or edr.refresh_endpoint is None:
                raise PeerRefused(
                    "the provider takes the access token no more and named no way to renew it", status=HTTPStatus.UNAUTHORIZED
                )
            asked = self._clock.now()
            form = urlencode({"grant_type": "refresh_token", "refresh_token": edr.refresh_token}).encode("ascii")
            headers = {
                "Authorization": await self._identity.mint(self._provider),
                "Content-Type": "application/x-www-form-urlencoded",
                "Accept": "application/json",
            }
            reply = await self.peer.send("POST", edr.refresh_endpoint, headers=headers, body=form, limit_bytes=ANSWER_BYTES_MAX)
            if by_clocks(reply.status, reply.headers.get("date"), self._clock.now()):
                text = "the provider refused to renew the access token, and its clock is far from ours; compare the clocks of both sides"
                raise PeerRefused(text, status=reply.status, said=CLOCKS_APART)
            fresh = _read(reply.status, reply.body, edr, asked)
            await self._renewed(fresh)
            self._edr = fresh
            self.renewals += 1

    async def presented(self, call: Callable[[str | None], Awaitable[T]]) -> T:
        """What `call` returns with the value of `Authorization` for a token that holds; if it is refused with 401 all the same, once more
        with a new one. A provider that may be an Eclipse EDC is shown the token alone before that."""
        token = await self.token()
        try:
            return await call(self._said(token))
        except PeerRefused as refused:
            if token is None or refused.status not in NOT_US:
                raise
            if self._alone is None:
                try:
                    found = await call(token)
                except PeerRefused as again:
                    if again.status not in NOT_US:
                        raise
                else:
                    self._alone = True
                    return found
            if refused.status != HTTPStatus.UNAUTHORIZED or not self.renewable:
                raise
        await self.renew(token)
        return await call(self._said(await self.token()))

    def _said(self, token: str | None) -> str | None:
        return token if token is None or self._alone else f"Bearer {token}"

    async def keep(self) -> None:
        """Renew ahead of expiry until cancelled. A renewal that fails is tried again; the next request will say if it matters."""
        while self.renewable and self._edr.expires is not None:
            await asyncio.sleep(max(PAUSE_SECONDS_MIN, self._seconds_left()))
            if self._seconds_left() > 0:  # somebody who needed one has renewed it meanwhile
                continue
            try:
                await self.renew(self._edr.access_token)
            except ConnectorError as error:
                telemetry.log.warning("token renewal failed", transfer=self._edr.transfer, reason=error.message)
                await asyncio.sleep(RETRY_SECONDS)

    def _seconds_left(self) -> float:
        """Until the token is due for renewal."""
        edr = self._edr
        if edr.expires is None:
            return float("inf")
        return edr.updated + RENEW_AT * (edr.expires - edr.updated) - self._clock.now()


def _read(status: int, body: bytes, edr: Edr, asked: float) -> Edr:
    """Read a token response (RFC 6749, 5.1). The life of a token counts from the asking: it may have begun then."""
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        answer = None
    if status != HTTPStatus.OK:
        told = answer.get("error") if isinstance(answer, dict) else None
        text = f"the provider refused to renew the access token: status {status}" + (f", `{told[:64]}`" if isinstance(told, str) else "")
        final = 400 <= status < 500 and status not in (408, 425, 429)  # noqa: PLR2004 - statuses
        raise PeerRefused(text, status=status, said=told if isinstance(told, str) else None) if final else PeerFailed(text)
    if not isinstance(answer, dict) or not is_token(answer.get("access_token")):
        raise PeerFailed("the provider's answer to a token renewal has no `access_token` that can be presented")
    life = answer.get("expires_in")
    if isinstance(life, str):
        life = int(life) if life.isascii() and life.isdigit() and len(life) <= LIFE_DIGITS_MAX else None
    known = isinstance(life, int | float) and not isinstance(life, bool) and life > 0
    refresh = answer.get("refresh_token")
    return replace(
        edr,
        access_token=answer["access_token"],
        refresh_token=refresh if isinstance(refresh, str) and refresh else edr.refresh_token,
        expires=asked + float(life) if known and life is not None else None,
        updated=asked,
    )
