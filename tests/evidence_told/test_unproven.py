"""What a sound file does not prove is said with it."""

import json

from connector.evidence.verify import verify
from tests.evidence.rig import CONSUMER, PROVIDER, SOUND, TRANSFER


def test_what_a_file_does_not_prove_is_said():
    told = " ".join(verify(SOUND.data).unproven)
    assert "keys are taken from the file" in told
    assert "2 of the 13 entries were not written later" in told
    assert "names, roles and addresses of participants, by which ids the other side knows what runs, when the file was exported" in told
    assert f"the ledger of {CONSUMER}" in told
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
