"""Quotas between two connectors: exactly as many uses as were agreed on, every byte of them, and an end whose reason both sides read."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
import pytest_asyncio

from connector.control_billing.measured import MEASURED, measured
from connector.dataplane.quotas import LARGEST
from connector.dsp.exchange import Process
from connector.odrl.operands import BYTE_COUNT, COUNT, RECORD_COUNT
from connector.records import Usage
from connector.records.aside import is_taken
from tests.control.orders import D, N, T, counts, order, settled
from tests.pair import WAIT_SECONDS, Pair, pair, quoted

RULE = "/permission/0"
USERS = 50


def limit(operand: str, operator: str, value: object, kind: str = "integer") -> dict[str, Any]:
    return {"leftOperand": operand, "operator": operator, "rightOperand": {"@value": str(value), "@type": f"xsd:{kind}"}}


def offer(*constraints: Any, **more: Any) -> dict[str, Any]:
    return {"@type": "Offer", "permission": [{"action": "use", "constraint": list(constraints)}]} | more


def test_what_a_policy_may_count_is_what_the_ledger_and_the_starts_count():
    assert LARGEST.keys() | {COUNT} == MEASURED
    assert measured("text/csv") == MEASURED - {RECORD_COUNT}
    assert measured("Application/X-NDJSON; charset=utf-8") == MEASURED


UNTIL_LONG_AGO = limit("odrl:dateTime", "lt", "2020-01-01T00:00:00Z", "dateTime")


@pytest_asyncio.fixture
async def two(tmp_path: Path) -> AsyncIterator[Pair]:
    async with pair(tmp_path / "pair", store="sqlite") as opened:
        yield opened


async def agreed(two: Pair, policy: dict[str, Any], content: bytes = b"data\n", **members: Any) -> str:
    """Publish, negotiate, and return the id of the agreement once the provider has it as final."""
    await two.provider.publish(D, policy, content=content, **members)
    begun = await two.consumer.asked("POST", "/negotiations", {"peer": "hospital", "dataset": D}, status=201)
    done = await two.consumer.state(N, begun["pid"], "FINALIZED")
    await two.provider.until(N, done.peer_pid or "", lambda p: p.state == "FINALIZED")
    assert done.agreement is not None
    return done.agreement


async def begin(two: Pair, agreement: str) -> Process:
    """Ask for a transfer; returns it, as the consumer knows it, once it runs or has ended."""
    begun = await two.consumer.asked("POST", "/transfers", {"agreement": agreement}, status=201)
    return await two.consumer.until(T, begun["pid"], lambda p: p.state in ("STARTED", "TERMINATED"))


async def used(two: Pair, agreement: str) -> Usage:
    """What the provider has counted, once nothing is being settled."""
    changed, store = asyncio.Event(), two.provider.connector.store
    two.provider.connector.journal.listen(lambda _changes, _evidence: changed.set())
    async with asyncio.timeout(WAIT_SECONDS):
        while (found := await store.usage(agreement) or Usage(agreement)) and any(
            each.amount and not is_taken(each) for each in found.open
        ):
            await changed.wait()
            changed.clear()
    return found


async def fetch(two: Pair, transfer: Process, **headers: str) -> tuple[int, bytes, str]:
    """Status, what came of the body, and the code of a refusal."""
    edr = await two.consumer.connector.store.edr(transfer.pid)
    assert edr is not None
    got = bytearray()
    said = {"Authorization": f"Bearer {edr.access_token}"} | headers
    async with two.consumer.http.get(edr.address["endpoint"], headers=said) as answer:
        if answer.status >= 400:
            return answer.status, b"", orjson.loads(await answer.read())["type"].rpartition(":")[2]
        try:
            async for piece in answer.content.iter_any():
                got += piece
        except (aiohttp.ClientPayloadError, ConnectionError):
            pass
        return answer.status, bytes(got), ""


@pytest.mark.asyncio
async def test_of_fifty_starts_at_once_as_many_happen_as_were_agreed_on(two: Pair):
    agreement = await agreed(two, offer(limit("odrl:count", "lteq", 10)))
    begun = await asyncio.gather(*(begin(two, agreement) for _ in range(USERS)))
    started = [each for each in begun if each.state == "STARTED"]
    refused = [each for each in begun if each.state == "TERMINATED"]
    assert (len(started), len(refused)) == (10, 40)
    usage = await used(two, agreement)
    assert usage.posted == ((RULE, COUNT, 10),)
    seen = await two.provider.asked("GET", f"/agreements/{quoted(agreement)}")
    assert seen["counters"] == [{"rule": RULE, "operand": COUNT, "used": 10, "reserved": 0, "limit": 10}]
    assert "counters" not in await two.consumer.asked("GET", f"/agreements/{quoted(agreement)}"), "the provider counts"
    for mine in refused:
        theirs = await two.provider.connector.store.process(T, mine.peer_pid or "")
        for side in (mine, theirs):
            assert side is not None
            assert side.detail["code"] == "QUOTA_EXHAUSTED"
            assert "count" in side.detail["reasons"][0]
        assert theirs is not None
        (counter,) = theirs.detail["decision"]["counters"]
        assert (counter["limit"], counter["used"] + counter["reserved"]) == (10, 10)
    assert [(await fetch(two, each))[:2] for each in started] == [(200, b"data\n")] * 10, (
        "those that were counted work, as often as they like"
    )


@pytest.mark.asyncio
async def test_fifty_transfers_of_one_agreement_get_its_bytes_to_the_last_and_then_end_with_the_reason(two: Pair):
    most, content = 3_000_001, bytes(range(256)) * 1000
    agreement = await agreed(two, offer(limit("urn:qiao:byteCount", "lteq", most)), content)
    transfers = await asyncio.gather(*(begin(two, agreement) for _ in range(USERS)))
    assert all(each.state == "STARTED" for each in transfers)
    taken = await asyncio.gather(*(fetch(two, each) for each in transfers))
    assert sum(len(body) for _, body, _ in taken) == most
    usage = await used(two, agreement)
    assert usage.posted == ((RULE, BYTE_COUNT, most),)
    short = [mine for mine, (_, body, _) in zip(transfers, taken, strict=True) if len(body) < len(content)]
    assert len(short) >= USERS - most // len(content)
    for mine in short:
        ended = await two.consumer.state(T, mine.pid, "TERMINATED")
        assert (ended.detail["code"], ended.detail["ended_by"]) == ("QUOTA_EXHAUSTED", "peer")
        assert f"is more than {most}" in ended.detail["reasons"][0]
    late = await begin(two, agreement)
    assert (late.state, late.detail["code"]) == ("TERMINATED", "QUOTA_EXHAUSTED")


@pytest.mark.asyncio
async def test_a_transfer_counts_once_however_often_it_is_resumed(two: Pair):
    agreement = await agreed(two, offer(limit("odrl:count", "lteq", 1)))
    mine = await begin(two, agreement)
    for side, pid in ((two.consumer, mine.pid), (two.provider, mine.peer_pid)):
        await side.asked("POST", f"/transfers/{quoted(pid or '')}/suspend", {"reason": "maintenance"})
        await two.consumer.state(T, mine.pid, "SUSPENDED")
        await two.provider.state(T, mine.peer_pid or "", "SUSPENDED")
        await side.asked("POST", f"/transfers/{quoted(pid or '')}/resume")
        await two.provider.until(T, mine.peer_pid or "", lambda p: p.state == "STARTED" and p.in_flight is None and not p.resumed)
        await two.consumer.state(T, mine.pid, "STARTED")
    assert (await fetch(two, mine))[0] == 200
    assert (await used(two, agreement)).posted == ((RULE, COUNT, 1),)
    assert (await begin(two, agreement)).detail["code"] == "QUOTA_EXHAUSTED"


@pytest.mark.asyncio
async def test_a_choice_that_holds_otherwise_lets_a_stream_go_on_where_its_quota_ends(two: Pair):
    choice = {"or": [limit("urn:qiao:byteCount", "lteq", 100_000), limit("urn:qiao:participant", "eq", two.consumer.site.id, "string")]}
    content = bytes(300_000)
    agreement = await agreed(two, offer(choice), content)
    mine = await begin(two, agreement)
    assert await fetch(two, mine) == (200, content, "")
    assert (await used(two, agreement)).posted == ((RULE, BYTE_COUNT, 100_000),), "from there on nothing depends on it"
    bound = {"or": [limit("urn:qiao:byteCount", "lteq", 100_000), UNTIL_LONG_AGO]}
    other = await agreed(two, offer(bound), content)
    mine = await begin(two, other)
    assert len((await fetch(two, mine))[1]) == 100_000, "the same quota, and nothing beside it that holds"
    ended = await two.consumer.state(T, mine.pid, "TERMINATED")
    assert ended.detail["code"] == "CONSTRAINT_UNSATISFIED", "that time has passed is as much of a reason as the bytes"


@pytest.mark.asyncio
async def test_where_one_permission_is_used_up_another_one_counts(two: Pair):
    rules = [{"action": "use", "constraint": [limit("urn:qiao:byteCount", "lteq", most)]} for most in (100_000, 250_000)]
    content = bytes(200_000)
    agreement = await agreed(two, {"@type": "Offer", "permission": rules}, content)
    mine = await begin(two, agreement)
    assert len((await fetch(two, mine))[1]) == 200_000
    assert len((await fetch(two, mine))[1]) == 50_000
    assert (await used(two, agreement)).posted == ((RULE, BYTE_COUNT, 100_000), ("/permission/1", BYTE_COUNT, 250_000))
    assert (await two.consumer.state(T, mine.pid, "TERMINATED")).detail["code"] == "QUOTA_EXHAUSTED"


@pytest.mark.asyncio
async def test_a_prohibition_beyond_an_amount_ends_at_that_amount(two: Pair):
    prohibited = [{"action": "use", "constraint": [limit("urn:qiao:byteCount", "gt", 70_000)]}]
    agreement = await agreed(two, offer(prohibition=prohibited) | {"permission": [{"action": "use"}]}, bytes(200_000))
    mine = await begin(two, agreement)
    assert len((await fetch(two, mine))[1]) == 70_000
    ended = await two.consumer.state(T, mine.pid, "TERMINATED")
    assert ended.detail["code"] in ("PROHIBITED", "QUOTA_EXHAUSTED")


@pytest.mark.asyncio
async def test_records_are_counted_where_a_record_is_a_line(two: Pair):
    content = b"".join(b'{"n":%d}\n' % n for n in range(1000))
    policy = offer(limit("urn:qiao:recordCount", "lteq", 123))
    said = {"type": "file", "path": "lines.ndjson", "media_type": "application/x-ndjson"}
    (two.provider.site.root / "data" / "lines.ndjson").write_bytes(content)
    agreement = await agreed(two, policy, source=said)
    mine = await begin(two, agreement)
    assert (await fetch(two, mine))[1] == b"".join(content.splitlines(keepends=True)[:123])
    assert (await two.consumer.state(T, mine.pid, "TERMINATED")).detail["code"] == "QUOTA_EXHAUSTED"


@pytest.mark.asyncio
async def test_fifty_transfers_of_one_agreement_get_its_records_to_the_last_and_each_of_them_whole(two: Pair):
    most, lines = 3_001, [b'{"n":%d,"of":"%s"}\n' % (n, b"x" * (n % 97)) for n in range(200)]
    said = {"type": "file", "path": "lines.ndjson", "media_type": "application/x-ndjson"}
    (two.provider.site.root / "data" / "lines.ndjson").write_bytes(b"".join(lines))
    agreement = await agreed(two, offer(limit("urn:qiao:recordCount", "lteq", most)), source=said)
    transfers = await asyncio.gather(*(begin(two, agreement) for _ in range(USERS)))
    taken = [body.splitlines(keepends=True) for _, body, _ in await asyncio.gather(*(fetch(two, each) for each in transfers))]
    assert sum(map(len, taken)) == most
    assert all(got == lines[: len(got)] for got in taken), "no part of a record without its rest"
    assert (await used(two, agreement)).posted == ((RULE, RECORD_COUNT, most),)
    late = await begin(two, agreement)
    assert (late.state, late.detail["code"]) == ("TERMINATED", "QUOTA_EXHAUSTED")


EACH_DAY = {"leftOperand": "odrl:timeInterval", "operator": "gteq", "rightOperand": "P1D"}


@pytest.mark.parametrize(
    ("constraint", "says"),
    [
        (limit("odrl:payAmount", "lteq", 5), "`odrl:payAmount` is not measured here"),
        (limit("odrl:percentage", "lteq", 50), "`odrl:percentage` is not measured here: no policy says of what it is a share"),
        (EACH_DAY, "nobody keeps when the last one was"),
        (limit("urn:qiao:recordCount", "lteq", 5), "records are counted in line-delimited JSON and in streams of events only"),
        (limit("urn:qiao:byteCount", "lteq", 5) | {"odrl:unit": {"@id": "https://example.org/kB"}}, "is not counted in"),
    ],
)
@pytest.mark.asyncio
async def test_what_nobody_here_measures_is_refused_when_it_is_written(two: Pair, constraint: dict[str, Any], says: str):
    (two.provider.site.root / "data" / "x.bin").write_bytes(b"x")
    for policy in (offer(constraint), offer({"or": [UNTIL_LONG_AGO, constraint]})):
        body = {"title": "x", "source": {"type": "file", "path": "x.bin"}, "policies": [policy]}
        answer = await two.provider.manage("PUT", f"/datasets/{quoted(D)}", body)
        assert (answer.status, answer.json["type"]) == (422, "urn:qiao:problem:policy-not-understood")
        assert says in answer.json["reasons"][0]
        assert "leftOperand" in answer.json["reasons"][0]


@pytest.mark.parametrize("beyond", [limit("odrl:payAmount", "lteq", 5), EACH_DAY], ids=["payAmount", "timeInterval"])
@pytest.mark.asyncio
async def test_no_agreement_is_made_on_terms_that_count_what_nobody_here_measures(two: Pair, beyond: dict[str, Any]):
    """The consumer asks for less than is offered, in a way that the provider could not hold it to."""
    await two.provider.publish(D, offer())
    terms = offer(beyond) | {"@id": (await two.provider.asked("GET", f"/datasets/{quoted(D)}"))["offers"][0]["id"]}
    begun = await two.consumer.asked("POST", "/negotiations", {"peer": "hospital", "dataset": D, "policy": terms}, status=201)
    ended = await two.consumer.state(N, begun["pid"], "TERMINATED")
    assert f"`{beyond['leftOperand']}` is not measured here" in "; ".join(ended.detail["reasons"])


@pytest.mark.asyncio
async def test_an_order_under_an_agreement_that_is_used_up_fails_and_asks_for_no_other(two: Pair):
    await two.provider.publish(D, offer(limit("odrl:count", "lteq", 2)))
    orders = [await settled(two.consumer, (await order(two.consumer, out=f"copy-{number}.bin"))["id"]) for number in range(4)]
    assert [each.stage for each in orders] == ["done", "done", "failed", "failed"]
    assert (await counts(two.consumer))[:2] == (await counts(two.provider))[:2] == (1, 1)
    for failed in orders[2:]:
        assert "count" in failed.reasons[0]
        assert failed.reasons[-1].startswith(f"agreement `{failed.agreement}` is used up; no other is asked for unbidden")


@pytest.mark.asyncio
async def test_a_peer_that_has_used_up_an_agreement_gets_another_from_a_person_only(two: Pair):
    first = await agreed(two, offer(limit("odrl:count", "lteq", 1)))
    wish = {"peer": "hospital", "dataset": D}
    second = await two.consumer.asked("POST", "/negotiations", wish, status=201)
    early = await two.consumer.state(N, second["pid"], "FINALIZED")
    assert early.agreement != first, "nothing is used up"
    assert (await begin(two, first)).state == "STARTED"
    third = await two.consumer.asked("POST", "/negotiations", wish, status=201)
    asked = await two.consumer.until(N, third["pid"], lambda p: p.state == "REQUESTED" and p.peer_pid is not None)
    view = await two.provider.asked("GET", f"/negotiations/{asked.peer_pid}")
    assert (view["state"], view["waiting"]) == ("REQUESTED", "approval")
    assert view["changes"][0] == f"agreement `{first}` from this offer is used up (`odrl:count`), and another has a quota of its own"
    await two.provider.asked("POST", f"/negotiations/{asked.peer_pid}/approve")
    await two.consumer.state(N, third["pid"], "FINALIZED")


@pytest.mark.asyncio
async def test_a_policy_without_counters_asks_nobody_what_was_used(two: Pair):
    agreement = await agreed(two, offer())

    async def asked(_agreement: str) -> None:
        raise AssertionError("nothing is counted")

    two.provider.connector.store.usage = asked  # type: ignore[method-assign]
    mine = await begin(two, agreement)
    assert (await fetch(two, mine))[0] == 200
    del two.provider.connector.store.usage
    assert await two.provider.connector.store.usage(agreement) is None
