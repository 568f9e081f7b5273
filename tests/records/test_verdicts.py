import pytest

from connector.errors import PolicyError
from connector.odrl import load
from connector.records.verdicts import REASONS_MAX, Verdict, again, identified, not_understood

AGREEMENT = {
    "@id": "urn:agreement:2",
    "@type": "Agreement",
    "target": "urn:d",
    "assigner": "did:web:p",
    "assignee": "did:web:c",
    "timestamp": "2026-01-01T00:00:00Z",
    "permission": [{"action": "use"}],
}
ASKED = {"at": "2026-01-01T00:00:00Z", "stage": "transfer", "request": {"party": "did:web:c"}, "facts": {}, "code": "PERMITTED"}


def test_a_decision_has_one_id_for_what_was_asked_of_which_policy_and_when():
    one = identified(ASKED, b"key")
    assert identified(dict(ASKED), b"key") == one
    assert one["policy_hash"] == b"key".hex()
    others = [identified(ASKED | {"at": "2026-01-02T00:00:00Z"}, b"key"), identified(ASKED, b"other")]
    assert len({each["id"] for each in (one, *others)}) == 3


def test_what_was_said_of_an_agreement_that_is_alike_is_said_of_this_one_now():
    document = ASKED | {"policy": "urn:agreement:1", "reason": ["by urn:agreement:1"], "other": "stays"}
    known = Verdict(True, "permit", "PERMITTED", ("by urn:agreement:1",), None, document, grounds=({"policy": "urn:agreement:1"},))
    said = again(known, ("policy", "reason"), b"key", load(AGREEMENT), 1_800_000_000.0)
    assert (said.reasons, said.grounds) == (("by urn:agreement:2",), ({"policy": "urn:agreement:2"},))
    told = {name: said.document[name] for name in ("policy", "reason", "other", "at")}
    assert told == {"policy": "urn:agreement:2", "reason": ["by urn:agreement:2"], "other": "stays", "at": "2027-01-15T08:00:00Z"}


def test_what_is_not_understood_is_denied_with_its_findings_and_some_of_them_as_data():
    constraints = [{"leftOperand": f"mood-{n}", "operator": "eq", "rightOperand": "x"} for n in range(REASONS_MAX + 1)]
    with pytest.raises(PolicyError) as refused:
        load({"@type": "Offer", "permission": [{"action": "use", "constraint": constraints}]})
    verdict = not_understood(refused.value)
    assert (verdict.permitted, verdict.code, verdict.reasons) == (False, "POLICY_NOT_UNDERSTOOD", refused.value.reasons)
    assert len(verdict.document["findings"]) > REASONS_MAX == len(verdict.grounds)
    assert verdict.grounds[0] == {"code": "TERM_DROPPED", "path": "/permission/0/constraint/0/leftOperand"}
