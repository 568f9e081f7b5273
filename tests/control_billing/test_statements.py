"""What a provider hears at the end of a transfer: from its consumer alone, once it is over, and only what answers its own statement."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from connector.control_billing import statements
from connector.dsp.messages import Kind
from connector.evidence.verify import verify
from connector.metering.content import write_bytes
from connector.metering.objects import Receipt, kept
from connector.metering.statements import Statement
from connector.records import Evidence
from connector.values import replace
from tests import pair
from tests.control_billing.test_stating import SAID, fact, fetched, quick

__all__ = ["quick"]
pytestmark = pytest.mark.asyncio


async def ask(one: pair.Running, other: pair.Running, method: str, path: str, token: str | None = None) -> pair.Answer:
    """What `one` says to the statements of `other`."""
    identity = one.connector.states.stating._means.identity
    headers = {"Authorization": await identity.mint(other.connector.settings.participant.id)} | (
        {"Content-Type": "application/jwt"} if token is not None else {}
    )
    url = f"{other.connector.settings.protocol.url}/ledger/statements{path}"
    return await pair.call(one.http, method, url, token.encode() if token is not None else None, headers)


def signed(at: pair.Running, token: str, **changed: Any) -> str:
    """The statement in a token with other claims, by the key of `at`."""
    return str(at.connector.states.stating._means.identity.sign(kept(Statement, token).claims() | changed, Statement.TYP))


async def facts(at: pair.Running, pid: str) -> list[Evidence]:
    return [each for each in await at.evidence(pid) if each.what in SAID]


async def test_a_statement_is_taken_once_and_only_if_it_answers_ours(tmp_path: Path):
    async with pair.pair(tmp_path, store="sqlite") as both:
        ours, theirs, _ = await fetched(both)
        await fact(both.consumer, ours, *SAID)
        token = (await fact(both.consumer, ours, "statement-signed")).entry or ""
        before = await facts(both.provider, theirs)
        again = await ask(both.consumer, both.provider, "POST", f"/{pair.quoted(theirs)}", token)
        assert (again.status, orjson.loads(again.body)) == (200, {"outcome": "agreed", "code": None})
        receipt = (await both.consumer.connector.store.receipts(ours))[-1].receipt
        assert kept(Receipt, receipt)
        lies = {
            "not-ascii\xe9": "jws-parts",
            "a.b.c": "jws-header",
            receipt: "jws-typ",
            signed(both.provider, token): "jws-issuer",
            signed(both.consumer, token, to=kept(Statement, token).ends + 1): "statement-agreement",
        }
        for lie, code in lies.items():
            answer = await ask(both.consumer, both.provider, "POST", f"/{pair.quoted(theirs)}", lie)
            assert answer.status == 422, answer.body
            assert orjson.loads(answer.body)["type"].endswith((code, "jws-kid") if code == "jws-issuer" else code)
        assert await facts(both.provider, theirs) == before


async def test_whatever_a_peer_signs_in_a_statement_the_evidence_of_who_keeps_it_is_sound_and_the_peer_is_accused(tmp_path: Path):
    """A statement of a transfer is sent for a period too; then there are ones of other receipts, with what is no checkpoint of its ledger,
    with an older checkpoint of ours, and with what is none."""
    async with pair.pair(tmp_path, store="sqlite") as both:
        early = await both.provider.connector.book.checkpoint()
        ours, theirs, agreement = await fetched(both)
        early = early or await both.provider.connector.book.checkpoint()
        await fact(both.consumer, ours, *SAID)
        token = (await fact(both.consumer, ours, "statement-signed")).entry or ""
        (flow,) = kept(Statement, token).claims()["flows"]

        async def checked() -> set[tuple[str, bool]]:
            file = await both.provider.manage("GET", f"/agreements/{pair.quoted(agreement)}/evidence")
            return {(each.code, each.accuses) for each in verify(file.body).findings}

        assert (await ask(both.consumer, both.provider, "POST", "", token)).status == 200
        assert (await ask(both.consumer, both.provider, "POST", "", signed(both.consumer, token, jti="j2", peer=early))).status == 200
        assert await checked() == set()
        lies = (
            {"flows": [flow | {"rcpt": write_bytes(b"x" * 32)}]},
            {"led": "nothing\n1\nAAAA\n\nno line\n"},
            {"peer": "nothing\n1\nAAAA\n\nno line\n"},
        )
        for number, lie in enumerate(lies):
            told = signed(both.consumer, token, jti=f"lie{number}", **lie)
            answer = await ask(both.consumer, both.provider, "POST", "", told)
            assert answer.status == 200, (lie, answer.body)
        elsewhere = signed(both.consumer, token, agr="urn:uuid:other")
        assert (await ask(both.consumer, both.provider, "POST", f"/{pair.quoted(theirs)}", elsewhere)).status == 200
        found = await checked()
    assert {"statement-receipt", "object-agreement"} < {code for code, _ in found}
    assert {accuses for _, accuses in found} == {True}


async def test_nobody_else_hears_of_a_transfer_and_nobody_before_it_is_over(tmp_path: Path):
    async with pair.pair(tmp_path, store="sqlite") as both:
        ours, theirs, agreement = await fetched(both)
        await fact(both.consumer, ours, *SAID)
        for one, other, pid in (
            (both.provider, both.provider, theirs),
            (both.provider, both.consumer, ours),
            (both.consumer, both.provider, "x"),
        ):
            assert (await ask(one, other, "GET", f"/{pair.quoted(pid)}")).status == 404
        token = (await fact(both.consumer, ours, "statement-signed")).entry or ""
        assert (await ask(both.provider, both.consumer, "POST", f"/{pair.quoted(ours)}", token)).status == 404
        stranger = signed(both.consumer, token, agr="urn:uuid:other")
        assert (await ask(both.consumer, both.provider, "POST", "", stranger)).status == 404
        ahead = signed(both.consumer, token, to=9_999_999_999)
        answer = await ask(both.consumer, both.provider, "POST", "", ahead)
        assert (answer.status, orjson.loads(answer.body)["type"]) == (422, "urn:qiao:problem:statement-agreement")
        assert await facts(both.provider, agreement) == []
        process = await both.provider.connector.store.process(Kind.TRANSFER, theirs)
        assert process is not None
        await both.provider.put(replace(process, state="STARTED", version=process.version + 1))
        assert (await ask(both.consumer, both.provider, "GET", f"/{pair.quoted(theirs)}")).status == 409


async def test_a_late_receipt_is_its_consumers_for_a_transfer_that_is_over_since_a_day_at_most_and_judged_as_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    async with pair.pair(tmp_path, store="sqlite") as both:
        ours, theirs, _ = await fetched(both)
        await fact(both.consumer, ours, *SAID)
        row = (await both.consumer.connector.store.receipts(ours))[-1]
        sign = both.consumer.connector.states.stating._means.identity.sign
        more = kept(Receipt, row.receipt).claims() | {"seq": row.sequence + 1}

        async def posted(by: pair.Running, token: str, pid: str = theirs) -> tuple[int, str]:
            answer = await ask(by, both.provider, "POST", f"/{pair.quoted(pid)}/receipt", token)
            code = orjson.loads(answer.body)["type"].rpartition(":")[2] if answer.status != 200 else answer.body.decode()
            return answer.status, code

        assert await posted(both.consumer, row.receipt) == (200, row.ack), "what is known has its ack again"
        assert (await posted(both.provider, row.receipt))[0] == 404
        assert (await posted(both.consumer, row.receipt, "x"))[0] == 404
        assert (await posted(both.consumer, (await fact(both.consumer, ours, "statement-signed")).entry or "")) == (422, "jws-typ")
        assert (await posted(both.consumer, both.provider.connector.states.stating._means.identity.sign(more, Receipt.TYP)))[0] == 422
        status, code = await posted(both.consumer, sign(more, Receipt.TYP))
        assert (status, code != "receipt-late") == (422, True)
        before = await both.provider.connector.store.metered(theirs)
        assert before is not None
        assert before.sequence == row.sequence
        monkeypatch.setattr(statements, "LATE_SECONDS", -60.0)
        assert await posted(both.consumer, row.receipt) == (422, "receipt-late")
        process = await both.provider.connector.store.process(Kind.TRANSFER, theirs)
        assert process is not None
        await both.provider.put(replace(process, state="STARTED", version=process.version + 1))
        assert (await posted(both.consumer, row.receipt))[0] == 409


async def test_the_same_statement_for_a_period_has_the_same_answer(tmp_path: Path):
    async with pair.pair(tmp_path, store="sqlite") as both:
        ours, _, agreement = await fetched(both)
        await fact(both.consumer, ours, *SAID)
        token = (await fact(both.consumer, ours, "statement-signed")).entry or ""
        one, two = [await ask(both.consumer, both.provider, "POST", "", token) for _ in range(2)]
        assert (one.status, one.body) == (200, two.body)
        assert len(await both.provider.evidence(agreement)) == 2
