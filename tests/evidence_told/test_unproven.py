"""What a sound file does not prove is said with it."""

import json
from typing import Any

from connector.evidence.verify import verify
from connector.values import replace
from tests.evidence.forgeries import other
from tests.evidence.rig import CONSUMER, NOW, PROVIDER, SOUND, TRANSFER, Story


def test_what_a_file_does_not_prove_is_said():
    told = " ".join(verify(SOUND.data).unproven)
    assert "keys are taken from the file" in told
    assert "2 of the 13 entries were not written later" in told
    assert "names, roles and addresses of participants, by which ids the other side knows what runs, when the file was exported" in told
    assert f"the ledger of {CONSUMER}" in told
    assert "snapshots and origins of content logs, ids of receipts, statements and closings, and when each was signed" in told
    assert "when the agreement is to end, by which numbers its events go, whether its account has the last ack, and" in told


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


def test_a_statement_says_nothing_of_the_time_after_it_was_signed():
    def by_consumer(value: Any) -> Any:
        return replace(value, issuer=CONSUMER, audience=PROVIDER, ledger=value.peer, peer=value.ledger, ends=NOW + 10**6)

    draft = Story({"receipt 2": other(state="partial"), "statement": by_consumer}).draft()
    draft.one("transfer")["account"]["status"] = "open"
    report = verify(draft.data)
    assert report.sound, report.findings
    (text,) = [each for each in report.unproven if each.startswith("that receipt 2 of transfer")]
    assert "it was the last before 2027-01-15T08:00:25Z" in text
