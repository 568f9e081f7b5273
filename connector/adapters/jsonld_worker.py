"""The child process that reads foreign JSON-LD: it compacts, checks and explains one body at a time, and can do nothing else.

Started by `connector.adapters.expander` as `python -m connector.adapters.jsonld_worker`. It speaks frames over its
standard input and output: four bytes of length, big-endian, then the content.

    in   {"schemas": {$id: document}, "contexts": {url: document}, "memory_bytes": n, "cpu_seconds": n}     once
    out  {"ready": true}
    in   {"expected": "ContractRequestMessage"}, then the body as it came                                   for each body
    out  {"document": {...}} or {"error": "sentence", "reasons": ["sentence", ...]}

Before the first body it gives up what a hostile one could use: no new file descriptors (hence no sockets and no files),
no file growth, no core dump, bounded memory, bounded processor time for each body.
"""

from __future__ import annotations

import os
import resource
import signal
import struct
import sys
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any, BinaryIO

import orjson

from connector.dsp import jsonld
from connector.dsp.messages import CONTEXT
from connector.dsp.schemas import BASE, REASONS_MAX, SCHEMA_OF, Violation, sentences
from connector.errors import WireError

LENGTH = struct.Struct(">I")
EXIT_MEMORY = 3  # distinguishes "ran out of memory" from every other end
ERRORS_MAX = 200  # violations looked at to find REASONS_MAX different sentences
STANDARD_STREAMS = 3  # descriptors 0, 1 and 2 stay

Explain = Callable[[str, object], list[str]]


def main() -> int:
    """Serve until standard input ends. Returns the exit status."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the connector, which then ends this process
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    setup = orjson.loads(_read(source) or b"{}")
    explain = explainer(setup["schemas"])
    _warm_up(explain, setup["contexts"])
    _give_up_powers(setup["memory_bytes"])
    _write(sink, {"ready": True})
    while (request := _read(source)) is not None and (body := _read(source)) is not None:
        _allow_processor_seconds(setup["cpu_seconds"])
        try:
            reply = answer(body, orjson.loads(request)["expected"], setup["contexts"], explain)
        except MemoryError:
            # what is left of the heap is not to be trusted with the next body
            os._exit(EXIT_MEMORY)
        _write(sink, reply)
    return 0


def answer(body: bytes, expected: str, contexts: Mapping[str, jsonld.Context], explain: Explain) -> dict[str, Any]:
    """The reply to one body: `{"document": ...}` if it is a valid `expected`, else `{"error": ..., "reasons": [...]}`."""
    document: object = None
    try:
        document = orjson.loads(body)
        compacted = jsonld.compact(document, expected, contexts)
        reasons = explain(expected, compacted)
        if not reasons:
            return {"document": compacted}
        return _refusal(f"the body is not a valid `{expected}`", _explain_as_sent(document, expected, explain) or reasons)
    except orjson.JSONDecodeError as error:
        return _refusal(f"the body is not JSON: {error.msg} at line {error.lineno} column {error.colno}", [])
    except WireError as error:
        return _refusal(error.message, [*error.reasons, *_explain_as_sent(document, expected, explain)])
    except RecursionError:
        return _refusal("the body or one of its contexts is nested too deeply", [])
    except MemoryError:
        raise
    except Exception as error:  # the library does not type-check everything that a body can hold
        return _refusal(f"the body is not JSON-LD that can be read ({type(error).__name__})", _explain_as_sent(document, expected, explain))


def explainer(schemas: Mapping[str, Mapping[str, Any]]) -> Explain:
    """A function `(type, document) -> reasons`, empty if the document is valid, on the reference implementation."""
    from jsonschema import Draft201909Validator, ValidationError
    from referencing import Registry
    from referencing.jsonschema import DRAFT201909

    registry = Registry().with_resources((id_, DRAFT201909.create_resource(document)) for id_, document in schemas.items())
    validators = {name: Draft201909Validator({"$ref": BASE + place}, registry=registry) for name, place in SCHEMA_OF.items()}

    def violation(error: ValidationError) -> Violation:
        branches: dict[int, list[Violation]] = {}
        if error.validator in ("oneOf", "anyOf"):
            for inner in islice(error.context or (), ERRORS_MAX):
                branches.setdefault(int(inner.schema_path[0]), []).append(violation(inner))
        alternatives = tuple(tuple(branch) for branch in branches.values())
        return Violation(tuple(error.absolute_path), str(error.validator), error.validator_value, error.instance, alternatives)

    def explain(type_: str, document: object) -> list[str]:
        errors = list(islice(validators[type_].iter_errors(document), ERRORS_MAX))
        return sentences(violation(error) for error in sorted(errors, key=lambda error: len(error.absolute_path)))

    return explain


def _explain_as_sent(document: object, expected: str, explain: Explain) -> list[str]:
    """Reasons that point into the body as it was sent, if its sender meant the compact form."""
    if not isinstance(document, dict) or document.get("@type") != expected:
        return []
    try:
        return explain(expected, document)
    except RecursionError:
        return []


def _refusal(message: str, reasons: list[str]) -> dict[str, Any]:
    return {"error": message, "reasons": list(dict.fromkeys(reasons))[:REASONS_MAX]}


def _warm_up(explain: Explain, contexts: Mapping[str, jsonld.Context]) -> None:
    """Take every path once while imports still work: expansion, compaction, framing, refusal, explanation."""
    message = {"@context": CONTEXT, "@type": "TransferCompletionMessage", "providerPid": "urn:p", "consumerPid": "urn:c"}
    foreign = {"@context": ["https://unknown.invalid/", {"@vocab": "urn:"}]}
    odd = {"@context": [*CONTEXT, {"x": {"@id": "urn:x", "@type": "@json"}}], "x": 1.5, "y": "é"}
    for body in (message, {"@graph": [message, {"@id": "urn:p", "@type": "urn:t"}]}, {**message, "providerPid": 1}, foreign, odd, 1):
        answer(orjson.dumps(body), "TransferCompletionMessage", contexts, explain)
    answer(b"{", "TransferCompletionMessage", contexts, explain)


def _give_up_powers(memory_bytes: int) -> None:
    for limit, value in (
        (resource.RLIMIT_NOFILE, STANDARD_STREAMS),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_DATA, memory_bytes),
    ):
        _, hard = resource.getrlimit(limit)
        bounded = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (bounded, bounded))


def _allow_processor_seconds(seconds: int) -> None:
    """The kernel ends the process once it has used `seconds` more; the parent's clock is the first line, this the second."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    soft = int(usage.ru_utime + usage.ru_stime) + 1 + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def _read(source: BinaryIO) -> bytes | None:
    head = source.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    (length,) = LENGTH.unpack(head)
    content = source.read(length)
    return content if len(content) == length else None


def _write(sink: BinaryIO, reply: Mapping[str, Any]) -> None:
    content = orjson.dumps(reply)
    sink.write(LENGTH.pack(len(content)) + content)
    sink.flush()


if __name__ == "__main__":
    sys.exit(main())
