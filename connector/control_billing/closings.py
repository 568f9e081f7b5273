"""Closings: whoever closes an agreement signs when, and tells the other side; both bill by the same instant.

What closes is signed in the commit that closes, so that no crash comes between, and told until it is taken, also after a restart; a peer
without such an address is left alone. The answer is signed as well, on record with whoever gives it before it leaves and with whoever gets
it: that the closing is taken, or refused for good and why, and by which instant the other side goes. Where both sides close at once, the
earlier closing counts on both (`metering.closing.first`), and as there is the receiver's own in the answer, if it has one, one round is
enough. Until the other side has signed that it has it, it is one side's word.

Each telling has an end. A consumer that tells a provider more than a week late hears that the provider has closed the agreement instead,
now: both bill by that. A closing that is refused, or for which a peer has had no place for a month, stays one side's word, by which that
side bills, as invoice and evidence say, and is a person's to look at; if the other side closes, its instant counts on both.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from http import HTTPStatus
from random import random
from typing import Final

import orjson

from connector import telemetry
from connector.control_billing.closed import FINAL, UNHEARD, own_closing
from connector.control_billing.receipted import last_before
from connector.control_billing.statements import Means
from connector.control_billing.stating import FIRST_PAUSE_SECONDS, Stating
from connector.dsp.messages import Kind
from connector.errors import ConnectorError, Contradiction, MeterRefused, NotFound, PeerFailed, PeerRefused, TooMany, Unauthenticated
from connector.lasting import stopped
from connector.metering.chain import AHEAD_SECONDS_MAX
from connector.metering.closing import (
    REFUSALS,
    REFUSED,
    TAKEN,
    Closing,
    ClosingAck,
    demand_after,
    demand_answer,
    demand_unheard,
    first,
    instant_of,
    is_late,
    is_new,
    seconds_of,
)
from connector.metering.codes import CODES, refused
from connector.metering.objects import Receipt, digest, kept, opened
from connector.ports import Reply
from connector.records import Agreement, Changes, Evidence, Expect
from connector.remembered import pause_seconds
from connector.values import Value, replace

PATH: Final = "/ledger/closings"
TOLD_SECONDS: Final = (
    31 * 86_400.0
)  # for so long a closing is told to a peer that says it has no place for it, or does not know the agreement
TOO_LATE: Final = "the consumer has closed it before, and said so more than a week later: it ends now"
REMEDY: Final = "this side bills by its own instant and the other may bill on: agree with its operator, and have it close the agreement"
AT_ONCE: Final = 16  # are told: after a start there may be many, to peers that have no place for them
ANSWERS_MAX: Final = 32  # on record of one agreement: two do, and one more for each key that ends
WAIT_SECONDS: Final = 3.0  # who closes waits so long to hear whether the other side has it
HEARD: Final = frozenset({HTTPStatus.OK, HTTPStatus.UNPROCESSABLE_ENTITY})


class Heard(Value):
    """What came of a closing of the other side: our answer (JWS), and the code for which we refuse it for good, "" if it is taken."""

    ack: str
    code: str = ""

    @property
    def message(self) -> str:
        """Why it is refused."""
        return CODES.get(self.code, "")


class Closings:
    """Signs, tells and takes them. `stating` reaches the other side."""

    def __init__(self, means: Means, stating: Stating) -> None:
        self._means, self._stating = means, stating
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._tried: dict[str, asyncio.Event] = {}
        self._room = asyncio.Semaphore(AT_ONCE)
        self._over = False

    def sign(self, agreement: Agreement) -> tuple[Evidence, ...]:
        """Our closing of an agreement that is being closed by us, for the record, in the commit that closes it. None for one whose id no
        signed object can name: it was made by other means, and its end is our word alone."""
        try:
            return (self._signed(agreement, instant_of(agreement.closed or 0.0)),)
        except MeterRefused as error:
            telemetry.log.warning("a closing cannot be signed", agreement=agreement.id, reason=error.message)
            return ()

    def _signed(self, agreement: Agreement, at: int) -> Evidence:
        means, now = self._means, self._means.clock.now()
        closing = Closing(means.identity.own.id, agreement.peer, means.ids.new(), int(now), agreement.id, at)
        token = means.identity.sign(Closing.of(closing.claims()).claims(), Closing.TYP)
        return Evidence(telemetry.CLOSING, None, agreement.id, agreement.peer, None, now, digest=digest(token), entry=token)

    def committed(self, _changes: Changes, evidence: tuple[Evidence, ...]) -> None:
        """Listens to commits: which closings of ours are to be told."""
        for fact in evidence:
            if fact.what == telemetry.CLOSING and fact.pid is not None:
                self._begin(fact.pid)

    async def recover(self) -> None:
        """Tell what an earlier process has not brought to its end."""
        for id in await self._means.store.untold():
            self._begin(id)

    async def close(self) -> None:
        """Stop; the next start goes on."""
        self._over = True
        await stopped(*self._tasks.values())

    async def tried(self, id: str) -> None:
        """Wait, WAIT_SECONDS at most, until the other side of an agreement has been told that we have closed it, or could not be."""
        if (event := self._tried.get(id)) is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(event.wait(), WAIT_SECONDS)

    def _begin(self, id: str) -> None:
        if not self._over and id not in self._tasks:
            self._tried[id] = asyncio.Event()
            task = self._tasks[id] = asyncio.create_task(self._telling(id), name=f"closing {id}")
            task.add_done_callback(lambda _: self._done(id))

    def _done(self, id: str) -> None:
        self._tasks.pop(id, None)
        self._tried.pop(id).set()

    async def _telling(self, id: str) -> None:
        failures = 0
        while True:
            try:
                async with self._room:
                    return await self.tell(id)
            except PeerRefused as error:
                telemetry.log.info("no place for a closing: it is our word alone", agreement=id, reason=error.message)
                with suppress(ConnectorError):  # else nobody can say so now
                    if not error.status or await self._unheard(id):  # it has no address, or has not had one for long enough
                        return None
            except ConnectorError as error:
                telemetry.log.info("closing put off", agreement=id, reason=error.message)
            except Exception as error:
                telemetry.log.error("closing failed", agreement=id, exc_info=error)
                return None
            self._tried[id].set()
            failures += 1
            await asyncio.sleep(pause_seconds(failures, FIRST_PAUSE_SECONDS, self._stating.pause_seconds_max, chance=random()))  # noqa: S311 - spreads load

    async def tell(self, id: str) -> None:
        """Tell the other side of an agreement that we have closed it, unless it knows; what it has signed of its own counts from then on.
        Raises PeerFailed if it has to be tried again, PeerRefused if it cannot be told."""
        means = self._means
        agreement, fact = await means.store.agreement(id), await means.store.newest_fact(id, telemetry.CLOSING)
        if agreement is None or fact is None or await means.store.newest_fact(id, telemetry.CLOSING_TOLD) is not None:
            return
        token = await self._token(agreement, fact)
        url = self._stating.place(agreement.peer, PATH)
        reply = await self._stating.ask("POST", url, agreement.peer, token, HEARD)
        code, answer = _answer(reply)
        if reply.status != HTTPStatus.OK and code not in FINAL:
            raise self._stating.failed(url, reply)
        ack = self._read(agreement, token, code, answer) if answer else None
        own = answer if ack is None else ack.own
        taken = not code and bool(own) and await self._answered(agreement, own or "")
        if ack is not None and not code and not taken and ack.ends != kept(Closing, token).at:
            raise PeerFailed("the other side goes by a closing of its own that does not hold here; it is told so, and then ours counts")
        await self._told(agreement, code, answer if ack is not None else None)

    def _read(self, agreement: Agreement, token: str, code: str, answer: str) -> ClosingAck | None:
        """What the other side has signed of our closing (JWS `token`). None for the answer of one that signs none: its own closing at most.
        Raises PeerFailed for one that does not hold, by which nobody can tell whether it has it."""
        means = self._means
        try:
            ack = opened(ClosingAck, answer, means.proven(agreement.peer))
            own = None if ack.own is None else opened(Closing, ack.own, means.proven(agreement.peer))
            demand_answer(ack, token, kept(Closing, token), own, agreement.provider, means.clock.now())
            if (ack.why or "") != code:
                raise refused("closing-ack-why")
        except MeterRefused as error:
            if error.code == "jws-typ" and not code:
                return None
            telemetry.log.warning("the answer to a closing does not hold", agreement=agreement.id, code=error.code, reason=error.message)
            raise PeerFailed(f"the answer to a closing does not hold: {error.message}", (error.code,)) from None
        return ack

    async def _told(self, agreement: Agreement, code: str, ack: str | None = None) -> None:
        """Put on record that a closing of ours is told, or that it will not be taken (`code`), which a person has to look at; and what the
        other side has signed of it. One that is refused for good ends nothing: then the other side's counts, if it has been taken."""
        means, id = self._means, agreement.id
        if code:
            telemetry.log.error("the other side does not take a closing", agreement=id, peer=agreement.peer, code=code, remedy=REMEDY)
        detail, name = {"code": code} if code else {}, None if ack is None else digest(ack)
        told = Evidence(telemetry.CLOSING_TOLD, None, id, agreement.peer, None, means.clock.now(), digest=name, detail=detail, entry=ack)

        async def step() -> Changes | None:
            if await means.store.newest_fact(id, told.what) is not None:
                return None
            theirs = await means.store.newest_fact(id, telemetry.CLOSING_TAKEN) if code in FINAL else None
            now = await means.store.agreement(id)
            return Changes(evidence=(told,)) if theirs is None or now is None else _by(now, kept(Closing, theirs.entry or ""), told)

        await means.decide(step, id)

    async def _unheard(self, id: str) -> bool:
        """Whether a peer has had no place for a closing for so long that it is not told again."""
        agreement = await self._means.store.agreement(id)
        if agreement is not None and agreement.closed is not None and self._means.clock.now() <= agreement.closed + TOLD_SECONDS:
            return False
        if agreement is not None:
            await self._told(agreement, UNHEARD)
        return True

    async def owed(self, agreement: Agreement) -> None:
        """Sign and tell the closing of an agreement that we have closed without one, before there were any, at the instant of then: nobody
        but us knows when that was."""
        means, id = self._means, agreement.id
        if agreement.closed_by != "us" or not agreement.final or await means.store.newest_fact(id, telemetry.CLOSING) is not None:
            return

        async def step() -> Changes | None:
            signed = self.sign(agreement) if await means.store.newest_fact(id, telemetry.CLOSING) is None else ()
            return Changes(evidence=signed) if signed else None

        await means.decide(step, id)

    async def _token(self, agreement: Agreement, fact: Evidence) -> str:
        """Our closing as the other side can read it: signed anew, of the same instant, if the key of then has ended since."""
        token, again = fact.entry or "", self._anew(agreement, fact)
        if again is None:
            return token

        async def step() -> Changes:
            return Changes(evidence=(again,))

        await self._means.decide(step, agreement.id)
        return again.entry or ""

    def _anew(self, agreement: Agreement, fact: Evidence) -> Evidence | None:
        """Our closing signed anew, of the same instant; None if the other side can still read it as it is."""
        token = fact.entry or ""
        return None if self._is_read(token, Closing.TYP) else self._signed(agreement, kept(Closing, token).at)

    def _is_read(self, token: str, typ: str) -> bool:
        """Whether what we have signed is by a key that has not ended since."""
        identity = self._means.identity
        try:
            identity.read(token, typ, identity.own.id, at=self._means.clock.now())
        except Unauthenticated:
            return False
        return True

    async def _answered(self, agreement: Agreement, token: str) -> bool:
        """The other side has closed it, too; whether that is taken. Of a closing that does not hold nothing is kept here."""
        try:
            await self._take(agreement.id, agreement.peer, token)
        except ConnectorError as error:
            telemetry.log.warning("the closing in an answer does not hold", agreement=agreement.id, reason=error.message)
            return False
        return True

    async def hear(self, caller: str, token: str) -> Heard:
        """Take the closing (JWS) of `caller`: the agreement is closed from its instant on, or from that of our own if that counts, and what
        runs under it ends. Our answer is on record; our own closing is in it, if there is one: one is made where a consumer's comes too
        late. One that has been taken is answered alike, and one that lies before what both have signed since, or is not the first of
        this side, is kept and refused in the answer. Raises NotFound for an agreement that is not one with it, Contradiction while it is
        not final here, MeterRefused for what is no closing of it or lies in the future, TooMany once ANSWERS_MAX others were answered."""
        means, found = self._means, opened(Closing, token, self._means.proven(caller))
        heard: Heard | None = None

        async def step() -> Changes | None:
            nonlocal heard
            agreement, code = await self._agreement(found, caller), ""
            try:
                changes = await self._taken(agreement, found, token) or Changes()
            except MeterRefused as error:
                if error.code not in REFUSALS:
                    raise
                code, changes = error.code, Changes(evidence=(self._fact(telemetry.CLOSING_REFUSED, agreement, token),))
            ack, more = await self._acked(agreement, found, changes, token, code)
            heard = Heard(ack, code)
            return replace(changes, evidence=(*changes.evidence, *more)) if more else None

        await means.decide(step, found.agreement)
        if heard is None:
            raise AssertionError("a step answers or raises")
        return heard

    async def _acked(
        self, agreement: Agreement, found: Closing, changes: Changes, token: str, code: str
    ) -> tuple[str, tuple[Evidence, ...]]:
        """Our answer to a closing (JWS `token`), and what of it is still to be put on record: nothing for a closing that has come before,
        unless a key has ended since, by which the other side could not read what it is told. `changes` are those that take it, if that was
        not done."""
        means, anew = self._means, None
        instead = next((fact for fact in changes.evidence if fact.what == telemetry.CLOSING), None)
        own = instead or await own_closing(means.store, agreement.id)
        if own is not None and (anew := self._anew(agreement, own)) is not None:
            own = anew
        ours = () if own is None else (kept(Closing, own.entry or ""),)
        counts = first((found, *ours), agreement.provider)
        ends = counts.at if counts is not None and not code else None if agreement.closed is None else instant_of(agreement.closed)
        parties = means.identity.own.id, agreement.peer, means.ids.new(), int(means.clock.now()), agreement.id
        ack = ClosingAck(*parties, digest(token), REFUSED if code else TAKEN, code or None, None if own is None else own.entry, ends)
        given = [fact.entry or "" for fact in await means.store.evidence_of(agreement.id) if fact.what == telemetry.CLOSING_ANSWERED]
        for each in reversed(given):
            if kept(ClosingAck, each).said == ack.said and self._is_read(each, ClosingAck.TYP):
                return each, ()
        if len(given) >= ANSWERS_MAX and not any(fact.what == telemetry.CLOSING_TAKEN for fact in changes.evidence):
            raise TooMany(f"{len(given)} closings of this agreement were answered, and the first counts; tell no others")
        fact = self._fact(telemetry.CLOSING_ANSWERED, agreement, means.identity.sign(ack.claims(), ClosingAck.TYP))
        return fact.entry or "", (fact,) if anew is None else (anew, fact)

    def _fact(self, what: str, agreement: Agreement, token: str) -> Evidence:
        return Evidence(what, None, agreement.id, agreement.peer, None, self._means.clock.now(), digest=digest(token), entry=token)

    async def _agreement(self, found: Closing, peer: str) -> Agreement:
        agreement = await self._means.store.agreement(found.agreement)
        if agreement is None or agreement.peer != peer:
            raise NotFound(f"there is no agreement `{found.agreement}` with you")
        if not agreement.final:
            raise Contradiction(f"agreement `{found.agreement}` is not final here yet; tell it again")
        return agreement

    async def _take(self, id: str, peer: str, token: str) -> None:
        """Take the closing (JWS) that is in an answer."""
        found = opened(Closing, token, self._means.proven(peer))
        if id != found.agreement:
            raise refused("closing-parties")

        async def step() -> Changes | None:
            return await self._taken(await self._agreement(found, peer), found, token)

        await self._means.decide(step, id)

    async def _taken(self, agreement: Agreement, found: Closing, token: str) -> Changes | None:
        """What takes a closing (JWS `token`) of the other side; None if it is taken already."""
        means, now = self._means, self._means.clock.now()
        taken = await means.store.newest_fact(agreement.id, telemetry.CLOSING_TAKEN)
        if not is_new(found, means.identity.own.id, None if taken is None else kept(Closing, taken.entry or ""), now):
            return None
        fact = self._fact(telemetry.CLOSING_TAKEN, agreement, token)
        own = await own_closing(means.store, agreement.id)
        if own is None and agreement.closed_by != "us" and found.issuer != agreement.provider and is_late(found, now):
            return self._instead(agreement, now, fact)
        await self._demand_after(agreement, found)
        ours = () if own is None else (kept(Closing, own.entry or ""),)
        if first((found, *ours), agreement.provider) is not found:
            return Changes(evidence=(fact,))
        told = await means.store.newest_fact(agreement.id, telemetry.CLOSING_TOLD)
        if ours and found.issuer == agreement.provider and told is not None and not told.detail:
            demand_unheard(found, *ours, told.at)
        return _by(agreement, found, fact)

    def _instead(self, agreement: Agreement, now: float, taken: Evidence) -> Changes:
        """Close an agreement, as its provider, whose consumer has told us too late that it has: both sides bill by this instant."""
        at = seconds_of(instant_of(now))
        closed = replace(agreement, closed=at, closed_by="us", reason=TOO_LATE, version=agreement.version + 1)
        said = {"agreement": agreement.id, "reasons": [TOO_LATE]}
        why = Evidence(telemetry.CLOSED, Kind.NEGOTIATION, agreement.negotiation, agreement.peer, None, at, detail=said)
        return Changes((Expect(Agreement, agreement.id, agreement.version),), (closed,), evidence=(taken, why, *self.sign(closed)))

    async def _demand_after(self, agreement: Agreement, found: Closing) -> None:
        """Raise MeterRefused for a closing before the agreement was made, or by a consumer before what it has signed for since. A provider
        that says an earlier instant asks for less."""
        latest = found.seconds + AHEAD_SECONDS_MAX
        if latest < agreement.created:
            raise refused("closing-before")
        if found.issuer == agreement.provider:
            return
        for account in await self._means.store.metered_of(agreement.id):
            row = await last_before(self._means.store, account, latest)
            demand_after(found, account, None if row is None else kept(Receipt, row.receipt).counts)


def _by(agreement: Agreement, closing: Closing, fact: Evidence) -> Changes:
    """What has an agreement go by a closing of the other side."""
    reason = agreement.reason if agreement.closed_by == "peer" else None
    after = replace(agreement, closed=closing.seconds, closed_by="peer", reason=reason, version=agreement.version + 1)
    return Changes((Expect(Agreement, agreement.id, agreement.version),), (after,), evidence=(fact,))


def _answer(reply: Reply) -> tuple[str, str]:
    """The code for which a closing is refused ("" if it is not), and the answer (JWS) of the other side ("" if it signs none)."""
    if reply.status == HTTPStatus.OK:
        return "", reply.body.decode("ascii", "replace").strip()
    try:
        said = orjson.loads(reply.body)
        code, ack = str(said["type"]).rpartition(":")[2], said.get("ack")
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        return "", ""
    return code, ack if isinstance(ack, str) else ""
