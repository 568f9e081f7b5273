from typing import Any

import pytest

from connector.errors import MeterRefused
from connector.evidence.bundle import Attestation
from connector.metering import claims

TOO_MANY = [[2 * n, 2 * n + 1] for n in range(1, 258)]
WRONG: dict[str, tuple[claims.Reads, list[Any]]] = {
    "did": (claims.did, ["", "did:web:", "did:WEB:x", "did:web:a b", "did:web:a#k1", "x", 5, None, "did:web:" + "a" * 512]),
    "id": (claims.id_, ["", "a b", "é", "a\n", 5, None, ["a"], "a" * 513]),
    "jti": (claims.jti, ["", "a" * 129, 5, " "]),
    "url": (claims.url, ["ftp://x/", "https://", "https://a b/", "https://u@x/", "https://x/#f", "https://x/é", "//x", None]),
    "note": (claims.note, ["", "\n", "no end", "a\tb\n", 5, "a\n" * 2049]),
    "number": (claims.number, [-1, 1.0, True, "1", None, 2**53, float("nan"), float("inf"), [1]]),
    "between": (claims.between(1, 4), [0, 5, True, 2.0]),
    "flag": (claims.flag, [0, 1, "true", None]),
    "digest": (claims.digest, ["", "A" * 42, "A" * 44, "A" * 42 + "B", "A" * 42 + "+", 5, None]),
    "one_of": (claims.one_of("ok"), ["OK", "", 5, None, ["ok"]]),
    "ranges": (claims.ranges, [None, {}, "[]", [1], [[1]], [[1, 2, 3]], [(1, 2)], [[1, 2.0]], [[True, 2]], [[-1, 2]], TOO_MANY]),
    "part": (claims.part({"a": claims.flag}, dict), [None, [], {}, {"a": 1}, {"a": True, "b": 1}]),
}  # fmt: skip


@pytest.mark.parametrize(("reads", "value"), [(reads, value) for reads, values in WRONG.values() for value in values])
def test_what_is_not_a_claim_of_its_kind_is_not_read(reads: claims.Reads, value: object):
    with pytest.raises(ValueError, match=r"^$"):
        reads(value)


def test_what_is_one_is_read():
    assert claims.did("did:web:hospital.example%3A8080") == "did:web:hospital.example%3A8080"
    assert claims.url("http://127.0.0.1:8080/data/urn:uuid:1/receipts?x=1") == "http://127.0.0.1:8080/data/urn:uuid:1/receipts?x=1"
    assert claims.note("p.example\n7\nroot\n\n\u2014 p.example sig\n") == "p.example\n7\nroot\n\n\u2014 p.example sig\n"
    assert claims.number(2**53 - 1) == 2**53 - 1
    assert claims.digest("A" * 43) == bytes(32)
    assert claims.optional(claims.flag)(None) is None
    assert claims.ranges([[1, 2], [3, 9]]) == ((1, 2), (3, 9))
    assert claims.ranges([]) == ()


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ([[2, 2]], "ranges-empty"),
        ([[3, 2]], "ranges-empty"),
        ([[0, 2]], "ranges-header"),
        ([[5, 6], [1, 2]], "ranges-unsorted"),
        ([[1, 4], [3, 6]], "ranges-overlap"),
        ([[1, 4], [1, 4]], "ranges-overlap"),
        ([[1, 4], [4, 6]], "ranges-adjacent"),
    ],
)
def test_a_set_of_leaves_has_one_spelling(value: object, code: str):
    with pytest.raises(MeterRefused) as refused:
        claims.ranges(value)
    assert refused.value.code == code


TABLE: claims.Table = {"v": claims.number, "st": claims.one_of("ok")}


@pytest.mark.parametrize(
    ("value", "code"),
    [({"v": 1}, "claims-missing"), ({"v": 1, "st": "ok", "x": 1}, "claims-unknown"), ({"v": "1", "st": "ok"}, "claim-v")],
)
def test_an_object_has_the_claims_of_its_kind_and_no_others(value: dict[str, Any], code: str):
    with pytest.raises(MeterRefused) as refused:
        claims.read(value, TABLE)
    assert refused.value.code == code


def test_an_attestation_has_its_claims_and_no_others():
    said = Attestation("did:web:hospital.example", 7, b"l" * 32)
    assert Attestation.of(said.claims()) == said
    for changed, code in (({"lines": "x"}, "claim-lines"), ({"iat": 7.5}, "claim-iat"), ({"more": 1}, "claims-unknown")):
        with pytest.raises(MeterRefused) as refused:
            Attestation.of(said.claims() | changed)
        assert refused.value.code == code
