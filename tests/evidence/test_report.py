"""The verdict: the same in words and as data."""

import json

from connector.evidence.verify import verify
from tests.evidence.rig import AGREEMENT, CONSUMER, PROVIDER, SOUND


def test_the_verdict_of_a_sound_file_says_who_what_how_much_when_and_by_whom_and_what_is_not_proven():
    lines = list(verify(SOUND.data).verdict())
    assert lines[0].startswith("The file is sound")
    text = "\n".join(lines)
    for said in (
        f"Who: {PROVIDER} provides, {CONSUMER} consumes; exported by the provider at 2027-01-15T08:01:00Z.",
        f"dataset urn:uuid:d under agreement {AGREEMENT}, final",
        "196613 bytes in transfer urn:uuid:t-p, promised 2027-01-15T08:00:00Z; 2 receipts signed by the consumer",
        "Owed: 5.25 EUR",
        "On record: 13 entries of the exporter's ledger",
        f"Witnessed: {CONSUMER} has cosigned the ledger with 12 entries at 2027-01-15T08:00:30Z, which are 11 of those in the file.",
        "Up to where: hospital.example/ledger as it was signed with 15 entries; the last of this agreement is entry 13, of",
        "2027-01-15T08:00:25Z. What came later is not in the file.",
        "Not proven: who the participants are",
    ):
        assert said in text, said


def test_the_verdict_of_a_file_that_is_not_sound_tells_faults_and_nothing_of_what_it_says():
    draft = SOUND.copy()
    draft.one("transfer")["account"]["counts"]["bytes"] = 1
    lines = list(verify(draft.data).verdict())
    assert lines[0].startswith("The file is NOT sound")
    assert len(lines) == 2
    assert lines[1].startswith("Fault account-counts (line 6, byte ")
    assert lines[1].endswith(", /account/counts): the account's counts are not those of its receipt.")


def test_a_report_is_plain_json():
    said = json.loads(json.dumps(verify(SOUND.data).to_json()))
    assert said["sound"] is True
    assert said["identities"] == "of the file"
    assert said["agreement"]["counts"]["bytes"] == 196_613
    assert said["agreement"]["flows"][0]["objects"].keys() == {"manifest", "receipt 1", "ack 1", "receipt 2", "ack 2"}
    flow = said["agreement"]["flows"][0]
    assert (flow["snapshot"], flow["origin"]) == ("s1", "hospital.example/log/s1"), "as its provider calls them"
    assert said["verdict"][0].startswith("The file is sound")
    broken = json.loads(json.dumps(verify(b"x").to_json()))
    assert (broken["sound"], broken["agreement"], broken["findings"][0]["code"]) == (False, None, "bytes-altered")
