import io
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from connector.adapters import jsonld_worker
from connector.adapters.jsonld_worker import EXIT_MEMORY, LENGTH, answer, explainer
from connector.dsp.messages import CONTEXT, DSP_CONTEXT
from connector.dsp.schemas import REASONS_MAX, SCHEMA_OF, Schemas
from connector.vocabulary import read_vocabulary
from tests.vocab.corpus import mutations

VOCABULARY = read_vocabulary()
EXPLAIN = explainer(VOCABULARY.schemas)
ROOT = Path(__file__).parents[2]
TYPE = "TransferStartMessage"
MESSAGE: dict[str, Any] = {"@context": CONTEXT, "@type": TYPE, "providerPid": "urn:p", "consumerPid": "urn:c"}


def answered(document: Any, expected: str = TYPE) -> dict[str, Any]:
    return answer(document if isinstance(document, bytes) else orjson.dumps(document), expected, VOCABULARY.contexts, EXPLAIN)


def test_a_foreign_form_is_answered_with_the_compact_one():
    assert answered({**MESSAGE, "@context": DSP_CONTEXT}) == {"document": MESSAGE}


def test_an_invalid_message_is_explained_as_it_was_sent():
    reply = answered({**MESSAGE, "providerPid": 5, "dataAddress": {"@type": "DataAddress", "endpointType": 5}})
    assert reply == {
        "error": "the body is not a valid `TransferStartMessage`",
        "reasons": ["`/providerPid` must be a string, not a number", "`/dataAddress/endpointType` must be a string, not a number"],
    }


def test_an_invalid_message_in_a_foreign_form_is_explained_in_compact_form():
    prefixed = {"@context": {"d": "https://w3id.org/dspace/2025/1/"}, "@type": f"d:{TYPE}", "d:providerPid": {"@id": "urn:p"}}
    assert answered(prefixed)["reasons"] == ["the document lacks `consumerPid`"]


def test_a_body_that_is_not_json_is_refused_with_the_place():
    assert answered(b'{"a": }')["error"].startswith("the body is not JSON: unexpected character, expected a JSON value at line 1 column 7")


def test_nesting_that_the_library_cannot_follow_is_refused():
    terms = {f"t{n}": f"t{n + 1}:x" for n in range(2000)}
    assert answered({**MESSAGE, "@context": [*CONTEXT, terms]})["error"] == "the body or one of its contexts is nested too deeply"


def test_a_body_on_which_the_library_fails_is_refused_with_what_can_be_said():
    reply = answered({**MESSAGE, "@context": [*CONTEXT, {"@vocab": None}], "consumerPid": 5})
    assert reply["error"] == "the body is not JSON-LD that can be read (KeyError)"
    assert "`/consumerPid` must be a string, not a number" in reply["reasons"]


def test_reasons_are_few_and_the_shallow_ones_come_first():
    properties = [{"@type": "EndpointProperty", "name": n, "value": ""} for n in range(50)]
    address = {"@type": "DataAddress", "endpointType": "urn:t", "endpointProperties": properties}
    reasons = answered({**MESSAGE, "dataAddress": address, "providerPid": 5})["reasons"]
    assert len(reasons) == REASONS_MAX
    assert reasons[0] == "`/providerPid` must be a string, not a number"
    assert reasons[1] == "`/dataAddress/endpointProperties/0/name` must be a string, not a number"


@pytest.mark.parametrize("shape", SCHEMA_OF)
def test_the_explainer_gives_reasons_exactly_where_the_fast_validator_says_no(shape: str):
    fast = Schemas(VOCABULARY.schemas)
    for document in mutations(shape, 40):
        reasons = EXPLAIN(shape, document)
        assert bool(reasons) is not fast.is_valid(shape, document)
        assert len(reasons) <= REASONS_MAX


def test_the_two_explainers_say_the_same_of_one_fault():
    fast = Schemas(VOCABULARY.schemas)
    address = {"@type": "DataAddress"}
    for change in ({"providerPid": 5}, {"providerPid": None}, {"@type": "x"}, {"dataAddress": []}, {"dataAddress": address}):
        assert EXPLAIN(TYPE, MESSAGE | change) == fast.reasons(TYPE, MESSAGE | change)


def test_more_than_one_alternative_is_explained_with_their_names():
    both = {"@context": CONTEXT, "@type": "ContractRequestMessage", "consumerPid": "c", "providerPid": "p", "callbackAddress": "c"}
    reasons = EXPLAIN("ContractRequestMessage", both)
    assert "the document must hold exactly one of its alternatives `callbackAddress` or `providerPid`, but holds more" in reasons


def test_a_frame_that_is_cut_ends_the_reading():
    whole = LENGTH.pack(3) + b"abc"
    assert jsonld_worker._read(io.BytesIO(whole)) == b"abc"
    assert [jsonld_worker._read(io.BytesIO(whole[:cut])) for cut in range(len(whole))] == [None] * len(whole)


def framed(*contents: bytes) -> bytes:
    return b"".join(LENGTH.pack(len(content)) + content for content in contents)


def run(*bodies: bytes, memory_bytes: int = 384 << 20, cpu_seconds: int = 5) -> tuple[int, list[Any]]:
    """Run the program on the bodies. Returns its exit status and its replies."""
    setup = {"schemas": VOCABULARY.schemas, "contexts": VOCABULARY.contexts, "memory_bytes": memory_bytes, "cpu_seconds": cpu_seconds}
    frames = framed(orjson.dumps(setup), *(part for body in bodies for part in (orjson.dumps({"expected": TYPE}), body)))
    program = [sys.executable, "-m", "connector.adapters.jsonld_worker"]
    done = subprocess.run(program, input=frames, stdout=subprocess.PIPE, cwd=ROOT, env={}, timeout=60, check=False)
    replies, output = [], io.BytesIO(done.stdout)
    while (content := jsonld_worker._read(output)) is not None:
        replies.append(orjson.loads(content))
    return done.returncode, replies


def test_the_program_serves_until_its_input_ends():
    good, bad = orjson.dumps({**MESSAGE, "@context": DSP_CONTEXT}), b"{"
    status, replies = run(good, bad, good)
    assert status == os.EX_OK
    assert replies[0] == {"ready": True}
    assert replies[1] == replies[3] == {"document": MESSAGE}
    assert replies[2]["error"].startswith("the body is not JSON")


LARGE = orjson.dumps({**MESSAGE, "providerPid": 5, "urn:l": [{"urn:x": {"@id": f"urn:{n}"}} for n in range(25_000)]})


def test_the_program_ends_with_its_own_status_when_memory_is_short():
    languages = {"l": {"@id": "urn:l", "@container": "@language"}}
    flood = orjson.dumps({**MESSAGE, "@context": [*CONTEXT, languages], "l": {str(n): ["x"] for n in range(50_000)}})
    status, replies = run(flood, memory_bytes=96 << 20, cpu_seconds=30)
    assert status == EXIT_MEMORY
    assert replies == [{"ready": True}]


def test_the_kernel_ends_the_program_that_takes_too_much_processor_time():
    status, replies = run(*[LARGE] * 20, cpu_seconds=-1)
    assert status == -signal.SIGXCPU
    assert replies[0] == {"ready": True}
    assert len(replies) < 20
