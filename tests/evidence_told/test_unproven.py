"""What a sound file does not prove is said with it."""

import json
from time import process_time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from connector.evidence.verify import verify
from connector.evidence_told import unproven
from connector.metering.content import write_bytes
from connector.metering.objects import digest
from connector.metering.statements import Flow, Statement
from connector.values import replace
from tests.evidence.forgeries import other
from tests.evidence.rig import AGREEMENT, CONSUMER, COUNTS, NOW, PROVIDER, SOUND, TRANSFER, Story


def test_what_a_file_does_not_prove_is_said():
    told = " ".join(verify(SOUND.data).unproven)
    assert "keys are taken from the file" in told
    assert "2 of the 13 entries were not written later" in told
    assert "names, roles and addresses of participants, by which ids the other side knows what runs, when the file was exported" in told
    assert f"the ledger of {CONSUMER}" in told
    assert "snapshots and origins of content logs, ids of receipts, statements and closings, and when each was signed" in told
    assert (
        "when the agreement is to end, by which numbers its events go, whether its account has the last ack, what is disputed, and" in told
    )


def test_an_end_whose_entry_was_left_out_passes_and_is_said_to_be_possible():
    """In a file without a count whoever exports chooses the entries: that a transfer still runs is as good as that no later one was left
    out."""
    draft = SOUND.uncounted()
    last = max((entry for entry in draft.all("entry") if entry["pid"] == TRANSFER and entry["body"]), key=lambda entry: entry["sequence"])
    draft.members = [each for each in draft.members if each[1] is not last]
    before = max((entry for entry in draft.all("entry") if entry["pid"] == TRANSFER and entry["body"]), key=lambda entry: entry["sequence"])
    draft.one("transfer")["state"] = json.loads(before["body"])["state"]
    report = verify(draft.data)
    told = " ".join(report.unproven)
    assert report.sound, report.findings
    assert f"{PROVIDER} may have left out some, such as how something ended, as a file of version 2 has no count of them; it has" in told
    assert f"that they are, which is its word, and its other exports and that of {CONSUMER} show" in told


def test_what_an_exporter_has_itself_dated_after_its_file_is_told():
    for ahead, told in ((300, False), (400, True)):
        report = verify(Story({"ack 1": other(issued=NOW + 60 + ahead)}).draft().data)
        assert report.sound, report.findings
        said = f"when the file was written: it says {ahead} s before an instant that {PROVIDER} has itself signed in it"
        assert (said in report.unproven) is told


def by_consumer(value: Any, **changed: Any) -> Any:
    """The same statement by the other side, or one that says something else."""
    return replace(value, issuer=CONSUMER, audience=PROVIDER, id="s2", ledger=value.peer, peer=value.ledger, **changed)


@pytest.mark.parametrize(
    ("said", "code"),
    [({}, None), ({"begins": NOW - 9, "flows": ()}, None), ({"flows": ()}, "statement-flow")],
)
def test_what_a_side_has_left_out_of_a_statement_that_the_other_has_in_its_own_is_told(said: dict[str, Any], code: str | None):
    """It may have been behind, so it is accused of nothing; and a period that one side alone has signed for contradicts nothing."""
    report = verify(Story(statements=(lambda value: by_consumer(value, **said),)).draft().data)
    assert report.sound, report.findings
    told = [text for text in report.unproven if text.startswith("that both sides say the same")]
    assert [f"of 2027-01-15T08:00:00Z to 2027-01-15T08:00:25Z: what {CONSUMER} has signed of it contradicts" in each for each in told] == [
        True for _ in filter(None, [code])
    ]
    assert all(f"`{code}`" in each for each in told)


def test_however_often_a_period_was_stated_while_more_of_it_came_its_statements_are_compared_once(monkeypatch: pytest.MonkeyPatch):
    """A peer asks for one as often as it likes, and each of ours may say more than the one before."""
    compared, real = list[object](), unproven.contradiction
    monkeypatch.setattr(unproven, "contradiction", lambda *both: compared.append(both) or real(*both))
    case: Any = SimpleNamespace(exporter=PROVIDER, counterparty=CONSUMER)

    def told(number: int, by: str, to: str) -> Any:
        flow = Flow(TRANSFER, b"m" * 32, number, b"%032d" % number, "both", COUNTS)
        return SimpleNamespace(value=Statement(by, to, f"s{number}", NOW, AGREEMENT, NOW - 9, NOW, (flow,), None, None))

    ours, theirs = ([told(at, *of) for at in range(1, 30)] for of in ((PROVIDER, CONSUMER), (CONSUMER, PROVIDER)))
    for said, texts in (([*ours, *theirs], 0), ([*ours[:14], *theirs[14:]], 1)):
        assert len(list(unproven._contradicted(case, cast(Any, SimpleNamespace(statements=said))))) == texts
    assert len(compared) == 1


def test_that_the_other_party_agreed_is_not_proven_by_a_manifest_of_the_exporter_s_own():
    """It names the agreement, and whoever invents that can sign it."""
    draft = SOUND.uncounted()
    gone = [each for each in draft.members if each[0] in ("receipt", "ack", "statement")]
    names = {write_bytes(digest(value["jws"])) for _, value in gone}
    kept = [(kind, value) for kind, value in draft.members if (kind, value) not in gone and value.get("jws") not in names]
    draft.members = [each for each in kept if each[0] not in ("consistency", "invoice") and "cosignature" not in str(each)]
    draft.one("transfer")["account"] = None
    draft.drop("checkpoint", 1)
    report = verify(draft.data)
    assert report.sound, report.findings
    assert any(text.startswith("that the other party agreed: nothing in the file is signed by it") for text in report.unproven)
    assert "that the consumer got anything: it has signed no receipt" in report.unproven


def test_a_statement_says_nothing_of_the_time_after_it_was_signed():
    draft = Story({"receipt 2": other(state="partial"), "statement": lambda value: by_consumer(value, ends=NOW + 10**6)}).draft()
    draft.one("transfer")["account"]["status"] = "open"
    report = verify(draft.data)
    assert report.sound, report.findings
    (text,) = [each for each in report.unproven if each.startswith("that receipt 2 of transfer")]
    assert "it was the last before 2027-01-15T08:00:25Z" in text


def test_of_thousands_of_transfers_and_statements_each_is_looked_at_once():
    """A peer signs a statement for each of its transfers that ends half-way, and one for each period that it asks for."""
    many: Any = range(3_000)
    last = [SimpleNamespace(digest=b"%d" % number, value=SimpleNamespace(state="aborted", sequence=1)) for number in many]
    manifest = SimpleNamespace(value=SimpleNamespace(provider_pid=TRANSFER))
    flows = {each.digest: SimpleNamespace(last=each, lost=[], manifest=manifest) for each in last}
    said = [
        SimpleNamespace(
            value=SimpleNamespace(issuer=CONSUMER, ends=NOW + number, issued=NOW, flows=[SimpleNamespace(receipt=b"%d" % number)])
        )
        for number in many
    ]
    case: Any = SimpleNamespace(counterparty=CONSUMER, exporter=PROVIDER)
    signed: Any = SimpleNamespace(flows=flows, statements=said)
    began = process_time()
    assert len([text for text in unproven._last(case, signed) if "before 2027-01-15T08:00:00Z" in text]) == len(many)
    assert process_time() - began < 0.5, "the product of both numbers takes seconds"
