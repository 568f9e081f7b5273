"""Policies in bad faith over real sockets: from an operator and from a peer, in every message and call that carries one. The answer is a
4xx or, where the protocol answers first, the end of the negotiation; never a 5xx, never a permit, and nothing else has changed. Meanwhile
the loop that serves everybody else stands still for 50 ms at most.

What each of these documents is called and why it is bad stands in tests/odrl_reading/test_bad_documents.py.
"""

import asyncio
import gc
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from time import thread_time
from typing import Any

import orjson
import pytest
import pytest_asyncio

from connector.dsp.messages import Kind, Move, Role
from tests import pair
from tests.api.conftest import DATASET, OFFER, everything, first_request, valid
from tests.odrl_reading.test_bad_documents import CONTEXTS, HOSTILE
from tests.pair import OPEN, Answer, Desk, agreement, document_of, fresh, negotiation, quoted
from tests.vocab import corpus

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning"),  # that is what a client says of itself
]

SECONDS_MAX = 0.05
PLACE = "the policy stands here"
A = '{"leftOperand":"odrl:purpose","operator":"eq","rightOperand":"a"}'
PAY = '{"leftOperand":"odrl:payAmount","operator":"lteq","rightOperand":{"@value":"5","@type":"xsd:decimal"},"odrl:unit":"urn:eur"}'
N = Kind.NEGOTIATION


class Loop:
    """How long each callback keeps the loop, in seconds of its own thread: whatever else this machine does is not counted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.longest, self.what = 0.0, ""
        run = asyncio.Handle._run

        def timed(handle: asyncio.Handle) -> None:
            start = thread_time()
            run(handle)
            took = thread_time() - start
            if took > self.longest:
                self.longest, self.what = took, repr(handle)

        monkeypatch.setattr(asyncio.Handle, "_run", timed)

    def begin(self) -> None:
        self.longest = 0.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def desk(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Desk]:
    """A connector as it is shipped, and a peer."""
    root = tmp_path_factory.mktemp("policies")
    ours, theirs = (pair.site(root / name, name) for name in ("hospital", "biopharma"))
    ours.meet(theirs)
    gc.collect()
    gc.freeze()  # what the tests themselves have loaded is not what the connector collects
    async with AsyncExitStack() as stack:
        us = await stack.enter_async_context(pair.running(ours))
        peer = await stack.enter_async_context(pair.scripted(theirs))
        made = Desk(us, peer, peer)
        await us.publish(DATASET, OPEN | {"@id": OFFER})
        await us.manage("PUT", f"/datasets/{quoted(fresh())}", b"{}")  # what is imported late is imported now
        await peer.send(us, "POST", "/negotiations/request", first_request(offer={"@type": "Offer"}))
        yield made


@pytest.fixture(scope="module")
def loop() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        yield Loop(patch)


def offer(constraint: str = A, more: str = "") -> str:
    """The text of an offer with this constraint."""
    return f'{{"@type":"Offer","permission":[{{"action":"use","constraint":[{constraint}]}}]{more}}}'


def nested(depth: int, key: str = "and", inner: str = A) -> str:
    return f'{{"{key}":[' * depth + inner + "]}" * depth


def purposes(count: int) -> str:
    return offer(A.replace('"eq"', '"isAnyOf"').replace('"a"', json.dumps([f"p{number}" for number in range(count)])))


BAD: dict[str, str] = {
    "a hundred thousand constraints": offer(",".join([A] * 100_000)),
    "a hundred thousand values": purposes(100_000),
    "as many constraints as fit into a message": offer(",".join([A] * 3_500)),
    "as many values as fit into a message": purposes(25_000),
    "as many rules as fit into a message": '{"@type":"Offer","permission":[' + ",".join(['{"action":"use"}'] * 14_000) + "]}",
    "as many duties as fit into a message": '{"@type":"Offer","permission":[{"action":"use","duty":['
    + ",".join(['{"action":"odrl:inform"}'] * 9_000)
    + "]}]}",
    "as many actions as fit into a message": '{"@type":"Offer","permission":[{"action":[' + ",".join(['"use"'] * 38_000) + "]}]}",
    "as many unknown properties as fit into a message": '{"@type":"Offer","permission":[{"action":"use",'
    + ",".join(f'"odrl:x{number}":1' for number in range(14_000))
    + "}]}",
    "a thousand and one constraints that are not known": offer(",".join([A.replace("purpose", "nothing")] * 1_001)),
    "ninety-nine constraints that are not known": offer(",".join([A.replace("purpose", "nothing")] * 99)),
    "a thousand levels": offer(nested(1_000)),
    "a hundred thousand levels": offer(nested(100_000)),
    "forty levels": offer(nested(40)),
    "a thousand levels of what is unknown": offer(A, ',"odrl:x":' + "[" * 1_000 + "]" * 1_000),
    "a hundred thousand brackets": "[" * 100_000,
    "a thousand consequences in each other": offer(A, ',"obligation":[' + nested(1_000, "odrl:consequence", '{"action":"use"}') + "]"),
    "an integer of five thousand digits": offer(A.replace('"a"', "9" * 5_000)),
    "an integer of five thousand digits in a literal": offer(A.replace('"a"', '{"@value":' + "9" * 5_000 + "}")),
    "five thousand digits": offer('{"leftOperand":"odrl:count","operator":"lteq","rightOperand":"' + "9" * 5_000 + '"}'),
    "a duration of five thousand digits": offer(
        '{"leftOperand":"odrl:elapsedTime","operator":"lteq","rightOperand":"P' + "9" * 5_000 + 'D"}'
    ),
    "a number without end": offer('{"leftOperand":"odrl:count","operator":"lteq","rightOperand":{"@value":1e999}}'),
    "a number that is none": offer('{"leftOperand":"odrl:count","operator":"lteq","rightOperand":{"@value":NaN}}'),
    "a key twice": offer(A, ',"permission":[{"action":"use"}]'),
    "a key twice deep down": offer(A.replace('"a"', '"a","rightOperand":"b"')),
    "a key twice, differently spelled": offer(A, ',"permi\\u0073sion":[{"action":"use"}]'),
    "nothing at all": "{}",
    "no rule": '{"@type":"Offer","permission":[]}',
    "a rule that is none": '{"@type":"Offer","permission":["use"]}',
    "no JSON": "{permission: use}",
    "itself as its parent": offer(A, f',"@id":"{OFFER}","odrl:inheritFrom":["{OFFER}"]'),
    "parents that nobody has": offer(A, ',"odrl:inheritFrom":["http://169.254.169.254/policy"]'),
    "twenty thousand parents": offer(A, ',"odrl:inheritFrom":' + json.dumps([f"urn:{number}" for number in range(20_000)])),
    "a reference": offer('{"leftOperand":"odrl:purpose","operator":"eq","odrl:rightOperandReference":"http://169.254.169.254/"}'),
    "a profile of nobody": offer(A, ',"profile":["https://evil.example/profile"]'),
    "twenty thousand profiles": offer(A, ',"profile":' + json.dumps([f"urn:{number}" for number in range(20_000)])),
    "an operand of nobody": offer(A.replace("odrl:purpose", "https://evil.example/x")),
    "a word without a prefix": offer(A.replace("odrl:purpose", "purpose")),
    "a megabyte in a string": offer(A.replace('"a"', json.dumps("x" * 1_000_000))),
    "two hundred thousand characters in a string": offer(A.replace('"a"', json.dumps("x" * 200_000))),
    "two hundred thousand characters in an operator": offer(A.replace('"eq"', json.dumps("x" * 200_000))),
    **{
        f"{what} in {place}": text
        for what, name in HOSTILE.items()
        if what in ("a line break", "NUL", "an escape sequence", "half a surrogate pair", "a text that runs backwards")
        for place, text in {
            "an action": offer().replace('"use"', json.dumps(name)),
            "an operand": offer(A.replace('"odrl:purpose"', json.dumps(name))),
            "an IRI": offer(A.replace('"a"', json.dumps({"@id": name}))),
            "a string": offer(A.replace('"a"', json.dumps(name))),
            "a unit": offer(PAY.replace('"urn:eur"', json.dumps(name))),
            "an assignee": offer(A, f',"assignee":{json.dumps(name)}'),
        }.items()
    },
    "an address with a script": offer(A.replace('"a"', json.dumps({"@id": "http://[::1]:8080/\n<script>"}))),
    **{f"a context: {what}": offer(A, f',"@context":{json.dumps(context)}') for what, context in CONTEXTS.items() if what != "many"},
}


def spliced(message: Any, policy: str) -> bytes:
    """The bytes of a message in which the text of the policy stands as it is, however little JSON that may be."""
    whole, marked = orjson.dumps(message), orjson.dumps(PLACE)
    assert whole.count(marked) == 1
    head, tail = whole.split(marked)
    return head + policy.encode(errors="surrogatepass") + tail


def with_members(policy: str, **members: str) -> str:
    """The policy with members that the protocol asks for, if it is an object at all."""
    inner = ",".join(f'"{key}":{json.dumps(value)}' for key, value in members.items() if f'"{key}"' not in policy)
    return f"{{{inner}{',' if inner and len(policy) > 2 else ''}{policy[1:]}" if policy.startswith("{") else policy


# doors: where an operator writes a policy

Sent = Callable[[Desk, str], Any]


async def publish(desk: Desk, policy: str) -> Answer:
    body = {"title": "t", "source": {"type": "file", "path": "x"}, "policies": [PLACE]}
    return await desk.us.manage("PUT", f"/datasets/{quoted(fresh('dataset'))}", spliced(body, policy))


async def publish_again(desk: Desk, policy: str) -> Answer:
    body = {"title": "t", "source": {"type": "file", "path": "x"}, "policies": [OPEN, PLACE]}
    return await desk.us.manage("PUT", f"/datasets/{quoted(DATASET)}", spliced(body, policy))


async def envelope(desk: Desk, policy: str) -> Answer:
    body = {"title": "t", "source": {"type": "file", "path": "x"}, "policies": [OPEN], "envelope": PLACE}
    return await desk.us.manage("PUT", f"/datasets/{quoted(fresh('dataset'))}", spliced(body, policy))


async def negotiate(desk: Desk, policy: str) -> Answer:
    body = {"peer": desk.peer.id, "dataset": DATASET, "offer": "urn:test:theirs", "policy": PLACE}
    return await desk.us.manage("POST", "/negotiations", spliced(body, policy))


async def acceptance(desk: Desk, policy: str) -> Answer:
    body = {"peer": desk.peer.id, "dataset": DATASET, "offer": "urn:test:theirs", "policy": OPEN, "acceptance": [PLACE]}
    return await desk.us.manage("POST", "/negotiations", spliced(body, policy))


async def counter(desk: Desk, policy: str) -> Answer:
    process = await desk.us.put(negotiation(desk.us, desk.peer, "REQUESTED", Role.PROVIDER, dataset=DATASET))
    try:
        return await desk.us.manage("POST", f"/negotiations/{process.pid}/counter", spliced({"policy": PLACE}, policy))
    finally:
        await desk.us.asked("POST", f"/negotiations/{process.pid}/terminate", {})


async def change(desk: Desk, policy: str) -> Answer:
    return await desk.us.manage("POST", "/simulate/change", spliced({"dataset": DATASET, "policy": PLACE}, policy))


OPERATOR: dict[str, Sent] = {
    "publish": publish, "publish again": publish_again, "envelope": envelope, "negotiate": negotiate, "acceptance": acceptance,
    "counter": counter, "change": change,
}  # fmt: skip


# doors: where a peer says one


async def request(desk: Desk, policy: str) -> Answer:
    body = first_request(offer=PLACE, callbackAddress=desk.peer.site.base)
    return await desk.peer.send(
        desk.us, "POST", "/negotiations/request", spliced(body, with_members(policy, **{"@id": OFFER, "target": DATASET}))
    )


async def made_offer(desk: Desk, policy: str) -> Answer:
    body = first_request(offer=PLACE, callbackAddress=desk.peer.site.base) | {"@type": "ContractOfferMessage"}
    body["providerPid"] = body.pop("consumerPid")
    text = with_members(policy, **{"@id": "urn:test:theirs", "target": "urn:test:theirs"})
    return await desk.peer.send(desk.us, "POST", "/negotiations/offers", spliced(body, text))


async def agreed(desk: Desk, policy: str) -> Answer:
    process = await desk.us.put(negotiation(desk.us, desk.peer, "REQUESTED", Role.CONSUMER))
    good = agreement(desk.us, desk.peer, Role.CONSUMER)
    body = document_of(Move.CONTRACT_AGREEMENT, process, good)
    members = {key: str(value) for key, value in body["agreement"].items() if key not in ("permission", "@type")}
    text = await asyncio.to_thread(with_members, policy.replace('"@type":"Offer"', '"@type":"Agreement"'), **members)
    said = await asyncio.to_thread(spliced, body | {"agreement": PLACE}, text)  # what a peer does is no work of our loop
    answer = await desk.peer.send(desk.us, "POST", f"/negotiations/{process.consumer_pid}/agreement", said)
    assert await desk.us.connector.store.agreement(good.id) is None
    return answer


PEER: dict[str, Sent] = {"request": request, "offer": made_offer, "agreement": agreed}


sizes = pytest.mark.parametrize("large", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["small", "large"])


def of_size(large: bool) -> list[tuple[str, str]]:
    return [(name, policy) for name, policy in BAD.items() if (len(policy) > 10_000) is large]


async def state(desk: Desk) -> list[Any]:
    """All that a refusal must not change, when nothing of what was said before it is on its way any more."""
    await desk.us.delivered()
    datasets = await desk.us.asked("GET", "/datasets")
    return [datasets, *await everything(desk)]


async def quickly(desk: Desk, loop: Loop, door: Sent, policy: str) -> Answer:
    """The answer, for which nothing kept the loop for longer than it may, in one of five tries: others work on this machine too."""
    took = []
    for _ in range(5):
        loop.begin()
        answer = await door(desk, policy)
        took.append((loop.longest, loop.what))
        if loop.longest <= SECONDS_MAX:
            return answer
    raise AssertionError(f"the loop stood still: {min(took)}")


@sizes
@pytest.mark.parametrize("door", OPERATOR)
async def test_what_an_operator_writes_in_bad_faith_is_refused_with_its_reason_and_changes_nothing(
    desk: Desk, loop: Loop, door: str, large: bool
):
    for name, policy in of_size(large):
        before = await state(desk)
        answer = await quickly(desk, loop, OPERATOR[door], policy)
        assert answer.status in (400, 413, 422), (name, answer.status, answer.body[:500])
        problem = answer.json
        assert problem["reasons"], name
        assert all(reason.isprintable() and len(reason) < 2_500 for reason in problem["reasons"]), name
        if door != "counter":  # that one has a negotiation of its own, which it ends
            assert await state(desk) == before, name


@sizes
@pytest.mark.parametrize("door", PEER)
async def test_what_a_peer_says_in_bad_faith_is_refused_or_ends_what_it_was_said_in(desk: Desk, loop: Loop, door: str, large: bool):
    ended = 0
    for name, policy in of_size(large):
        before, known = await state(desk), await agreements(desk)
        answer = await quickly(desk, loop, PEER[door], policy)
        assert answer.status in (200, 201, 400, 413), (name, answer.status, answer.body[:500])
        document = answer.json
        if answer.status in (400, 413):
            valid("ContractNegotiationError", document)
            assert all(str(reason).isprintable() for reason in document["reason"]), name
            if door != "agreement":
                assert await state(desk) == before, name
        else:
            ended += 1
            pid = document["providerPid" if door == "request" else "consumerPid"]
            if door == "offer":  # one that nobody has asked for waits for an operator, who cannot take it either
                await desk.us.state(N, pid, "OFFERED")
                assert (await desk.us.manage("POST", f"/negotiations/{pid}/approve", {})).status == 422, name
                await desk.us.asked("POST", f"/negotiations/{pid}/terminate", {"reason": "nobody understands it"})
            process = await desk.us.state(N, pid, "TERMINATED")
            assert process.detail["reasons"], name
        assert await agreements(desk) == known, name
    assert large or ended > 0, "some of it is met by the policy engine and not by the schema"


DELETE, BEFORE = {"action": "odrl:delete"}, {"leftOperand": "odrl:dateTime", "operator": "lteq", "rightOperand": "2099-12-31Z"}
LARGEST: dict[str, dict[str, Any]] = {  # as many parts as are taken, of the sorts that take longest
    "duties": {"permission": [{"action": "use", "duty": [DELETE] * 158}]},
    "obligations with a time": {"permission": [{"action": "use"}], "obligation": [DELETE | {"constraint": [BEFORE]}] * 113},
}


@pytest.mark.parametrize("what", LARGEST)
async def test_the_largest_policies_that_are_taken_keep_the_loop_no_longer(desk: Desk, loop: Loop, what: str):
    took = []
    for _ in range(5):  # each under names of its own, so that nothing of it is known yet
        loop.begin()
        dataset, terms = fresh("dataset"), LARGEST[what] | {"@type": "Offer", "@id": fresh("offer")}
        await desk.us.publish(dataset, terms)
        (view,) = (await desk.us.asked("POST", "/simulate", {"as": desk.peer.id, "dataset": dataset}))["items"]
        assert view["shown"]
        body = first_request(offer=terms | {"target": dataset}, callbackAddress=desk.peer.site.base)
        pid = (await desk.peer.send(desk.us, "POST", "/negotiations/request", body)).json["providerPid"]
        await desk.us.state(N, pid, "AGREED")
        await desk.us.asked("GET", f"/negotiations/{pid}/decision")
        took.append((loop.longest, loop.what))
        if loop.longest <= SECONDS_MAX:
            return
    raise AssertionError(f"the loop stood still: {min(took)}")


async def agreements(desk: Desk) -> Any:
    return (await desk.us.connector.store.agreements(peer=None, dataset=None, after=None, limit=1_000)).items


async def test_two_agreements_for_one_asset_have_each_its_own_id_and_account(desk: Desk):
    counted = json.loads(offer('{"leftOperand":"odrl:count","operator":"lteq","rightOperand":{"@value":"1","@type":"xsd:integer"}}'))
    dataset, terms = fresh("dataset"), counted | {"@id": fresh("offer")}
    await desk.us.publish(dataset, terms)
    made, started = [], []
    for _ in range(2):
        body = first_request(offer=terms | {"target": dataset}, callbackAddress=desk.peer.site.base)
        pid = (await desk.peer.send(desk.us, "POST", "/negotiations/request", body)).json["providerPid"]
        verified = document_of(Move.VERIFICATION, await desk.us.state(N, pid, "AGREED"))
        assert (await desk.peer.send(desk.us, "POST", f"/negotiations/{pid}/agreement/verification", verified)).status == 200
        made.append((await desk.us.state(N, pid, "FINALIZED")).agreement)
    assert len(set(made)) == 2
    for agreed_on in (made[0], made[0], made[1], made[1]):
        call = {"agreementId": agreed_on, "format": "HttpData-PULL", "consumerPid": fresh(), "callbackAddress": desk.peer.site.base}
        document = {"@context": corpus.CONTEXT, "@type": "TransferRequestMessage"} | call
        pid = (await desk.peer.send(desk.us, "POST", "/transfers/request", document)).json["providerPid"]
        ended = await desk.us.until(Kind.TRANSFER, pid, lambda process: process.state in ("STARTED", "TERMINATED"))
        started.append((ended.state, ended.detail.get("code")))
    once = [("STARTED", None), ("TERMINATED", "QUOTA_EXHAUSTED")]
    assert started == once * 2, "one use of each, and what is used up under one is left under the other"
