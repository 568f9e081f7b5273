"""We as the consumer, who states too what a transfer came to; and whoever asks the other side for its statement of a period.

Once a transfer for which we have signed receipts is over, the provider is asked for its statement; it is compared with our account, ours is
signed, and posted. That is tried until it is done, also after a restart, for a month: then both bill by what was acknowledged, as before,
and a person has to look at why the other side signs nothing. A provider without such an address is left alone. An ack that a crash has
kept from us comes with it, and a receipt that it has kept from the provider is posted first, so that both sides have the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from http import HTTPStatus
from random import random
from typing import Any, Final
from urllib.parse import quote
from weakref import WeakValueDictionary

import orjson

from connector import telemetry
from connector.control_billing.receipted import last_before
from connector.control_billing.statements import DISPUTED, LATE_SECONDS, WHATS, Means, Outcome, Statements, concluded, timed
from connector.dsp import answers
from connector.dsp.exchange import Process
from connector.dsp.messages import Kind, Role
from connector.errors import ConnectorError, InvalidRequest, MeterRefused, NotFound, PeerFailed, PeerRefused, StoreError
from connector.lasting import stopped
from connector.metering import chain_consumer
from connector.metering.chain import AHEAD_SECONDS_MAX
from connector.metering.chain import Outcome as Judgement
from connector.metering.counts import Counts
from connector.metering.objects import Receipt, digest, kept, manifest_of, opened
from connector.metering.statements import Flow, Statement, compare, flow_of
from connector.ports import Participant, Peer, Reply
from connector.records import Agreement, Changes, Evidence, Expect
from connector.records.metering import Metered, Receipted
from connector.remembered import pause_seconds
from connector.values import Value, replace

PROTOCOL_PATH, PATH = "/dsp/2025-1", "/ledger/statements"
JWT: Final = "application/jwt"
REFUSALS: Final = HTTPStatus.BAD_REQUEST, HTTPStatus.CONFLICT, HTTPStatus.UNPROCESSABLE_ENTITY  # of a receipt, for good
ANSWER_BYTES_MAX: Final = 256 * 1024  # a manifest, a receipt, an ack and a statement
SINCE_SECONDS: Final = 31 * 86_400.0  # for so long after its end a transfer is stated
FIRST_PAUSE_SECONDS = 1.0  # between two attempts
AWAITED_SECONDS = 5.0  # that a transfer which is to begin waits for those that ended so shortly before
REMEDY: Final = "both sides bill by what was acknowledged; ask the provider's operator why it signs none, or for one of the whole period"
FETCHING, PAGE = "download", 200  # the stage of an order that fetches; how many orders are read at once
SETTLED_SECONDS: Final = 5  # after which the acks of a period are on record on both sides


class Period(Value):
    """What both sides have signed for a period of an agreement: `own` and `theirs` are JWS."""

    agreement: str
    begins: int
    ends: int
    own: str
    theirs: str
    code: str

    def to_json(self) -> dict[str, Any]:
        said = kept(Statement, self.own)
        outcome = {"outcome": Outcome(self.own, self.code).word, "code": self.code or None}
        flows = [flow.claims() for flow in said.flows]
        period = {"agreement": self.agreement, "from": self.begins, "to": self.ends}
        return period | outcome | {"totals": said.totals.claims(), "flows": flows, "own": self.own, "theirs": self.theirs}


class Stating:
    """States what is over. `statements` is the other half, `pause_seconds_max` the longest pause between two attempts."""

    def __init__(self, means: Means, statements: Statements, peer: Peer, pause_seconds_max: float) -> None:
        self.pause_seconds_max = pause_seconds_max
        self._means, self._statements, self._peer = means, statements, peer
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()  # as long as somebody states a transfer
        self._closed = False

    def committed(self, changes: Changes, _evidence: tuple[Evidence, ...]) -> None:
        """Listens to commits: which transfers are over."""
        for record in changes.saves:
            if isinstance(record, Process) and record.kind is Kind.TRANSFER and record.role is Role.CONSUMER and record.final:
                self._begin(record.pid)

    async def recover(self) -> None:
        """Go on with what an earlier process has not brought to its end."""
        since = self._means.clock.now() - SINCE_SECONDS
        for pid in await self._means.store.unstated(Role.CONSUMER, tuple(WHATS.values()), since):
            self._begin(pid)

    async def close(self) -> None:
        """Stop; the next start goes on."""
        self._closed = True
        await stopped(*self._tasks.values())

    def _begin(self, pid: str) -> None:
        if not self._closed and pid not in self._tasks:
            task = self._tasks[pid] = asyncio.create_task(self._settled(pid), name=f"statement {pid}")
            task.add_done_callback(lambda _: self._tasks.pop(pid, None))

    async def _settled(self, pid: str) -> None:
        failures = 0
        while True:
            try:
                return await self.settle(pid)
            except ConnectorError as error:
                if isinstance(error, NotFound) or (isinstance(error, PeerRefused) and not error.status):  # it has no address to ask at
                    telemetry.log.info("no statement with this provider", transfer=pid, reason=error.message)
                    return None
                if await self._over(pid):
                    telemetry.log.error("a transfer stays without a statement", transfer=pid, reason=error.message, remedy=REMEDY)
                    return None
                log = telemetry.log.warning if isinstance(error, PeerRefused) else telemetry.log.info
                log("statement put off", transfer=pid, reason=error.message)
            except Exception as error:
                telemetry.log.error("statement failed", transfer=pid, exc_info=error)
                return None
            failures += 1
            await asyncio.sleep(pause_seconds(failures, FIRST_PAUSE_SECONDS, self.pause_seconds_max, chance=random()))  # noqa: S311 - spreads load

    async def _over(self, pid: str) -> bool:
        """Whether a transfer ended so long ago that it is not stated any more."""
        try:
            process = await self._means.store.process(Kind.TRANSFER, pid)
        except StoreError:  # nobody can say so now
            return False
        return process is None or process.updated + SINCE_SECONDS < self._means.clock.now()

    async def settle(self, pid: str) -> None:
        """Compare, sign and post, unless that is done. Raises PeerFailed if it has to be tried again, PeerRefused if it cannot be done with
        this provider, MeterRefused for what the provider has signed and what does not hold."""
        async with self._turns.setdefault(pid, asyncio.Lock()):
            await self._settle(pid)

    async def _settle(self, pid: str) -> None:
        store = self._means.store
        stored, process = await store.metered(pid), await store.process(Kind.TRANSFER, pid)
        if stored is None or process is None or process.peer_pid is None or not stored.sequence:
            return
        facts = await store.evidence_of(pid)
        if any(fact.what in WHATS.values() for fact in facts):
            return
        if await self._signing(pid):
            raise PeerFailed("what came before the end is still being signed for")
        place = f"{self.place(stored.peer)}/{quote(process.peer_pid, safe='')}"
        told = _told(await self.ask("GET", place, stored.peer))
        stored = await self._take_ack(stored, told)
        theirs = opened(Statement, told["statement"], self._means.proven(stored.peer))
        taken = self._means.clock.now() <= process.updated + LATE_SECONDS  # then it is stated, whatever has kept the receipt from it
        if not stored.ack and not _names(theirs, stored) and taken and await self._late(place, stored):
            told = _told(await self.ask("GET", place, stored.peer))
            stored = await self._take_ack(stored, told)
            theirs = opened(Statement, told["statement"], self._means.proven(stored.peer))
        if not stored.ack and _names(theirs, stored):
            raise PeerFailed("the provider has signed that it has our last receipt, and has not acknowledged it")
        own = await self._own(stored, theirs, facts)
        code = _contradiction(theirs, kept(Statement, own), manifest_of(stored.manifest).issued, self._means.clock.now())
        if _disputed(await self.ask("POST", place, stored.peer, own)) and not code:
            code = "statement-differs"  # it says so of what is the same here
        outcome = Outcome(own, code or await timed(self._means, (stored,), theirs))
        apart = (pid,) if outcome.disputed else ()
        await concluded(self._means, Kind.TRANSFER, pid, stored.peer, told["statement"], outcome, apart)

    async def _late(self, place: str, stored: Metered) -> bool:
        """Post the last receipt, which a crash has kept from the provider, now that the token of its transfer has ended; whether it is
        taken. It covers what is verified and stored here. Raises PeerFailed if that has to be tried again."""
        try:
            answer = await self.ask("POST", f"{place}/receipt", stored.peer, stored.receipt, (HTTPStatus.OK, *REFUSALS))
        except PeerRefused:  # it has no such place
            return False
        if answer.status != HTTPStatus.OK:
            telemetry.log.info("late receipt refused", transfer=stored.transfer, reason=str(self.failed(place, answer)))
        return answer.status == HTTPStatus.OK

    async def stated(self, agreement: str) -> None:
        """Wait for the statements of those transfers of an agreement that have ended within AWAITED_SECONDS before all was signed
        for, and no longer: then the provider's budget has back what they had on their way, and lets the next one begin."""
        store, since = self._means.store, self._means.clock.now() - AWAITED_SECONDS
        waits = list[asyncio.Task[None]]()
        for pid, task in tuple(self._tasks.items()):
            account, process = await store.metered(pid), await store.process(Kind.TRANSFER, pid)
            left_off = account is not None and account.agreement == agreement and account.sequence and account.status != "complete"
            if left_off and process is not None and process.updated > since:
                waits.append(task)
        if waits:
            await asyncio.wait(waits, timeout=AWAITED_SECONDS)

    async def heard(self, pid: str) -> bool:
        """Whether the provider has the last receipt of ours for a transfer that is over: False only by what it has signed. Its ack says
        that it has it, and so does a statement that names it. A statement without it is a denial: both sides sign the transfer without it
        before this returns. So an ack that comes after all counts no more, and what the receipt covers can be signed for anew and is paid
        for once. What it says and has not signed is not believed. Raises PeerFailed if it cannot be asked now, PeerRefused if not at all,
        MeterRefused for what it has signed and what does not hold."""
        store = self._means.store
        stored, process = await store.metered(pid), await store.process(Kind.TRANSFER, pid)
        if stored is None or stored.ack or process is None or process.peer_pid is None:
            return stored is not None and bool(stored.ack)
        if (own := _concluded(await store.evidence_of(pid))) is None:
            told = _told(await self.ask("GET", f"{self.place(stored.peer)}/{quote(process.peer_pid, safe='')}", stored.peer))
            stored = await self._take_ack(stored, told)
            if stored.ack or _names(opened(Statement, told["statement"], self._means.proven(stored.peer)), stored):
                return True
            await self.settle(pid)
            stored, own = await store.metered(pid) or stored, _concluded(await store.evidence_of(pid))
        return bool(stored.ack) or own is None or _names(own, stored)

    async def _signing(self, pid: str) -> bool:
        """Whether an order still fetches by this transfer, though it is over: its last receipt says what has come."""
        after: str | None = None
        while True:
            page = await self._means.store.pulls(open_only=True, after=after, limit=PAGE)
            if any(pull.transfer == pid and pull.stage == FETCHING for pull in page.items):
                return True
            if (after := page.next) is None:
                return False

    async def _take_ack(self, stored: Metered, told: Mapping[str, str]) -> Metered:
        """The account with the ack of its last receipt, if that had not come."""
        if stored.ack or not told["ack"] or told["receipt"] != stored.receipt:
            return stored
        judged = chain_consumer.judge_ack(stored, told["ack"], proven=self._means.proven(stored.peer), now=self._means.clock.now())
        if judged.outcome is not Judgement.ACCEPTED:
            raise MeterRefused(judged.message, judged.code)
        now = self._means.clock.now()
        saved = replace(judged.account, version=stored.version + 1, updated=now)
        row = Receipted(stored.transfer, saved.sequence, digest(saved.receipt), saved.receipt, saved.ack, now)
        name = telemetry.RECEIPT_ACKNOWLEDGED
        fact = Evidence(name, Kind.TRANSFER, saved.transfer, saved.peer, None, now, digest=digest(saved.ack), entry=saved.ack)

        async def step() -> Changes | None:
            known = await self._means.store.metered(stored.transfer)
            if known is not None and known.ack:  # somebody who asked at the same time was quicker
                return None
            return Changes((Expect(Metered, stored.transfer, stored.version),), (saved, row), evidence=(fact,))

        await self._means.decide(step, stored.transfer)
        return saved

    async def _own(self, stored: Metered, theirs: Statement, facts: list[Evidence] | Any) -> str:
        """Our statement (JWS) for the period of theirs, on record before anybody sees it; the one of before, if a crash came after it."""
        flow = await self._flow(stored, theirs)
        for fact in facts:
            if fact.what == telemetry.STATEMENT and fact.entry:
                said = kept(Statement, fact.entry)
                if (said.begins, said.ends, said.flows) == (theirs.begins, theirs.ends, (flow,)):
                    return str(fact.entry)
        means = self._means
        note, now = await means.note(), means.clock.now()
        parties = means.identity.own.id, stored.peer, means.ids.new(), int(now), stored.agreement
        statement = Statement(*parties, theirs.begins, theirs.ends, (flow,), note, theirs.ledger)
        token = means.identity.sign(statement.claims(), Statement.TYP)
        about = Kind.TRANSFER, stored.transfer, stored.peer, None, now
        fact = Evidence(telemetry.STATEMENT, *about, digest=digest(token), entry=token)

        async def step() -> Changes:
            return Changes(evidence=(fact,))

        await means.decide(step, stored.transfer)
        return token

    async def _flow(self, stored: Metered, theirs: Statement) -> Flow:
        """What the transfer came to for us. Of a last receipt without an ack nobody knows whether the provider has it: then what it has
        signed says so."""
        whole = flow_of(stored)
        if stored.ack or whole in theirs.flows:
            return whole
        if (last := await last_before(self._means.store, stored, below=stored.sequence)) is None:
            return Flow(whole.transfer, whole.manifest, 0, None, "provider-only", Counts())
        return Flow(whole.transfer, whole.manifest, last.sequence, last.digest, "both", kept(Receipt, last.receipt).counts)

    async def period(self, id: str, begins: float | None, ends: float | None) -> Period:
        """Sign what was signed for under an agreement in a period (POSIX seconds; None: from its beginning, up to a moment ago), and have
        the other side sign its own. Raises NotFound for an agreement that is not here, InvalidRequest for a period that is none or not
        over, PeerFailed and PeerRefused if the other side does not answer: what we have signed is on record then."""
        agreement = await self._means.store.agreement(id)
        if agreement is None:
            raise NotFound(f"there is no agreement `{id}`")
        last = int(self._means.clock.now()) - SETTLED_SECONDS
        first, end = int(agreement.created if begins is None else begins), last if ends is None else int(ends)
        if begins is None:
            first = min(first, end)
        if not first <= end:
            raise InvalidRequest("the period ends before it begins; give `from` before `to`", pointer="/from")
        if end > last:
            raise InvalidRequest(f"the period is not over; it ends {SETTLED_SECONDS} s ago at the latest", pointer="/to")
        return await self._agreed(agreement, first, end)

    async def _agreed(self, agreement: Agreement, begins: int, ends: int) -> Period:
        place = self.place(agreement.peer)
        own = await self._statements.sign(agreement, begins, ends)
        token = (await self.ask("POST", place, agreement.peer, own)).body.decode("ascii", "replace")
        try:
            theirs = opened(Statement, token, self._means.proven(agreement.peer))
        except MeterRefused as refused:
            raise PeerFailed(f"the other side's statement does not hold: {refused.message}") from refused
        outcome = await self._statements.conclude(agreement, token, theirs, own)
        return Period(agreement.id, begins, ends, own, token, outcome.code)

    def place(self, peer: str, path: str = PATH) -> str:
        """Where a participant takes what is signed for `path`. Raises PeerRefused if it has no such place."""
        known: Participant | None = self._means.identity.find(peer)
        protocol = (known.protocol if known is not None else None) or ""
        if not protocol.endswith(PROTOCOL_PATH):
            raise PeerRefused(f"`{peer}` has no address at which it takes statements")
        return protocol.removesuffix(PROTOCOL_PATH) + path

    async def ask(self, method: str, url: str, peer: str, token: str | None = None, taken: Collection[int] = (HTTPStatus.OK,)) -> Reply:
        """Ask a participant at an address of `place`, with a signed object (JWS) or without. Raises PeerRefused where it takes none, and
        PeerFailed for all other statuses than those that are `taken`, as `failed` says."""
        headers = {"Authorization": await self._means.identity.mint(peer), "Accept": "*/*"} | telemetry.trace_header()
        if token is not None:
            headers["Content-Type"] = JWT
        body = None if token is None else token.encode("ascii")
        reply = await self._peer.send(method, url, headers=headers, body=body, limit_bytes=ANSWER_BYTES_MAX)
        if reply.status in taken:
            return reply
        raise self.failed(url, reply)

    @staticmethod
    def failed(url: str, reply: Reply) -> PeerFailed:
        """The error for an answer that is none, with the code that the other side has given for its reason, if it has."""
        code: tuple[str, ...] = ()
        text = f"the other side answered a {'statement' if PATH in url else 'closing'} with status {reply.status}"
        with suppress(orjson.JSONDecodeError, KeyError, TypeError):  # a proxy has words of its own
            code = (str(orjson.loads(reply.body)["type"]).rpartition(":")[2][:64],)
            text += f", `{code[0]}`"
        if reply.status in answers.NOT_US:
            text += f": it does not take who we are; {answers.MENDED}"
        if reply.status in (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED):
            return PeerRefused(text, status=reply.status)
        return PeerFailed(text, code)


def _told(reply: Reply) -> dict[str, str]:
    """What the provider has on record of a transfer. Raises PeerFailed if it cannot be read."""
    try:
        told = orjson.loads(reply.body)
        found = {name: told[name] or "" for name in ("receipt", "ack", "statement")}
    except (orjson.JSONDecodeError, KeyError, TypeError):
        found = {}
    if not found or not all(isinstance(value, str) for value in found.values()):
        raise PeerFailed("what the provider has on record of the transfer cannot be read")
    return found


def _disputed(reply: Reply) -> bool:
    """Whether the provider says that our statement differs from its own. Raises PeerFailed if it cannot be read."""
    try:
        heard = orjson.loads(reply.body)
    except orjson.JSONDecodeError:
        raise PeerFailed("what the provider says of our statement cannot be read") from None
    return isinstance(heard, dict) and heard.get("outcome") == DISPUTED


def _names(said: Statement, stored: Metered) -> bool:
    """Whether a statement names the last receipt of an account."""
    return digest(stored.receipt) in {flow.receipt for flow in said.flows}


def _concluded(facts: Sequence[Evidence]) -> Statement | None:
    """Our statement about a transfer, once what came of it is on record."""
    own = next((fact.detail.get("own") for fact in facts if fact.what in WHATS.values()), None)
    return next((kept(Statement, fact.entry) for fact in facts if own and fact.entry and fact.digest and fact.digest.hex() == own), None)


def _contradiction(theirs: Statement, own: Statement, began: int, now: float) -> str:
    """The code of what is wrong with the provider's statement beside ours; "" if nothing is."""
    try:
        compare(theirs, own)
    except MeterRefused as refused:
        return refused.code
    latest = max(began, now) + AHEAD_SECONDS_MAX  # nothing of a transfer is dated before its manifest (`chain.dated`)
    return "" if theirs.begins == began and theirs.ends <= latest else "statement-agreement"
