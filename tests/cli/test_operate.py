"""`connector participants`, `erase`, `dead-letters`, `replay`, `discard`, `reload`."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from connector.adapters_stores.sqlite_ledger import SELECT_EVIDENCE, evidence_of
from connector.merkle.tree import leaf_hash
from connector.records import Changes, Evidence
from connector.records.ledger import entry_of, hidden_of
from tests import pair
from tests.cli.conftest import Command, Operated
from tests.fake_connector import FakeConnector, problem

LETTER = {
    "id": "urn:l:1",
    "pid": "urn:uuid:n1",
    "kind": "negotiation",
    "peer": "did:web:hospital.example",
    "move": "verify",
    "error": "no answer within 10 s",
    "created": "2026-01-31T12:00:00.000Z",
    "deadline": "2026-02-01T12:00:00.000Z",
}


def test_participants_are_listed(command: Command, fake: FakeConnector, home: Path, golden: Callable[[str, str], None]):
    items = [
        {"id": "did:web:hospital.example", "name": "hospital", "role": "hospital", "protocol": "https://h.example/dsp/2025-1"},
        {"id": "did:web:a.example", "name": "桥-authority", "role": "registry", "protocol": None},
    ]
    fake.answers[("GET", "/v1/participants")] = (200, {"items": items, "next": None})
    golden("participants", command("participants").out)
    assert json.loads(command("participants", "--json").out)["items"] == items


def test_dead_letters_are_listed(command: Command, fake: FakeConnector, home: Path, golden: Callable[[str, str], None]):
    fake.answers[("GET", "/v1/dead-letters")] = (200, {"items": [LETTER], "next": None})
    golden("dead-letters", command("dead-letters").out)
    assert json.loads(command("dead-letters", "--json").out)["items"] == [LETTER]


def test_more_dead_letters_than_are_listed_are_said_to_be_there(command: Command, fake: FakeConnector, home: Path):
    fake.answers[("GET", "/v1/dead-letters")] = (200, {"items": [LETTER], "next": "more"})
    assert command("dead-letters").err == "only the newest 1 are listed\n"


def test_a_dead_letter_is_dropped(command: Command, fake: FakeConnector, home: Path):
    fake.answers[("DELETE", "/v1/dead-letters/urn%3Al%3A1")] = (204, None)
    assert command("discard", "urn:l:1").out == "urn:l:1 is dropped\n"
    assert json.loads(command("discard", "urn:l:1", "--json").out) == {"discarded": "urn:l:1"}
    assert fake.paths() == ["DELETE /v1/dead-letters/urn%3Al%3A1"] * 2
    fake.answers[("DELETE", "/v1/dead-letters/x")] = (404, problem(404, "not-found", "there is no dead letter `x`"))
    ended = command("discard", "x")
    assert (ended.code, ended.err) == (1, "connector: there is no dead letter `x`\n")


def test_a_dead_letter_is_replayed(command: Command, fake: FakeConnector, home: Path):
    fake.answers[("POST", "/v1/dead-letters/urn%3Al%3A1/replay")] = (200, {"replayed": "urn:l:1"})
    assert command("replay", "urn:l:1").out == "urn:l:1 is on its way again\n"
    assert json.loads(command("replay", "urn:l:1", "--json").out) == {"replayed": "urn:l:1"}
    assert fake.paths() == ["POST /v1/dead-letters/urn%3Al%3A1/replay"] * 2


def test_a_dead_letter_that_is_not_there_is_said(command: Command, fake: FakeConnector, home: Path):
    fake.answers[("POST", "/v1/dead-letters/x/replay")] = (409, problem(409, "contradiction", "there is no dead letter `x`"))
    ended = command("replay", "x")
    assert (ended.code, ended.err) == (1, "connector: there is no dead letter `x`\n")


def test_reload_says_what_changed(command: Command, fake: FakeConnector, home: Path):
    fake.answers[("POST", "/v1/reload")] = [(200, {"changed": ["added `did:web:b`"]}), (200, {"changed": []}), (200, {"changed": ["x"]})]
    assert command("reload").out == "added `did:web:b`\n"
    assert command("reload").out == "nothing has changed\n"
    assert json.loads(command("reload", "--json").out) == {"changed": ["x"]}


def test_a_reload_that_is_refused_lists_the_mistakes(command: Command, fake: FakeConnector, home: Path):
    fake.answers[("POST", "/v1/reload")] = (500, problem(500, "settings", "the settings cannot work", ("`store.kind` is `x`",), trace="t1"))
    assert command("reload").err == "connector: the settings cannot work\n  - `store.kind` is `x`\n  trace t1\n"


LOG = {
    "origin": "biopharma.example/ledger",
    "size": 3,
    "follows": None,
    "checkpoint": "",
    "updated": "2026-01-31T12:00:00.250Z",
    "keys": [],
}


def test_the_ledger_is_shown_with_who_has_witnessed_it(
    command: Command, fake: FakeConnector, home: Path, golden: Callable[[str, str], None]
):
    later = LOG | {"origin": "biopharma.example/ledger/1764000000", "size": 1, "follows": "follows biopharma.example/ledger 5 AAAA="}
    ours = {"peer": "did:web:hospital.example", "origin": LOG["origin"], "size": 2, "note": "", "conflict": None, "updated": LOG["updated"]}
    theirs = ours | {"origin": "hospital.example/ledger", "size": 9}
    document = {"logs": [LOG, later], "cosigned": [ours], "witnessed": [theirs, theirs | {"conflict": "note"}], "fault": None}
    document["waiting"] = [{"peer": "did:web:hospital.example", "since": "2026-11-26T10:00:00Z", "reason": "nobody answers; try again"}]
    fake.answers[("GET", "/v1/ledger")] = (200, document)
    golden("ledger", command("ledger").out)
    assert json.loads(command("ledger", "show", "--json").out) == document
    forked, waiting = command("ledger").err.splitlines()
    assert forked.startswith("did:web:hospital.example has signed two checkpoints that contradict each other, and nothing is acknowledged")
    assert "`connector ledger forgive did:web:hospital.example`" in forked
    assert waiting.startswith("did:web:hospital.example has not cosigned since 2026-11-26 10:00:00Z, and is asked again: nobody answers")
    fake.answers[("GET", "/v1/ledger")] = (200, {"logs": [], "fault": "the ledger cannot be extended: OSError"})
    assert command("ledger").err.splitlines()[-1] == "the ledger cannot be extended: OSError"


def test_a_participant_is_asked_to_cosign_the_ledger_now(command: Command, fake: FakeConnector, home: Path):
    row = {"peer": "did:web:hospital.example", "origin": LOG["origin"], "size": 3, "note": "", "conflict": None, "updated": LOG["updated"]}
    fake.answers[("POST", "/v1/ledger/witnesses/hospital")] = (200, row)
    assert command("ledger", "witness", "hospital").out == "biopharma.example/ledger: did:web:hospital.example has cosigned 3 entries\n"
    assert json.loads(command("ledger", "witness", "hospital", "--json").out) == {"cosigned": row}
    for wrong in (("witness",), ("verify", "hospital")):
        ended = command("ledger", *wrong)
        assert (ended.code, ended.err) == (
            1,
            "connector: name a participant with `ledger witness` or `ledger forgive`, and with nothing else\n",
        )


@pytest.mark.asyncio
async def test_the_ledger_is_computed_anew_and_what_was_altered_is_named(operated: Operated, tmp_path: Path):
    async with pair.running(pair.site(tmp_path / "x", "x", store="sqlite")) as at:
        count = 300
        facts = tuple(Evidence("pull", None, f"urn:uuid:{number}", None, None, 1.0) for number in range(count))
        await at.connector.journal.commit(Changes(evidence=facts))
        await at.connector.book.index_of(count)
        origin = at.site.settings.protocol.url.removeprefix("http://") + "/ledger"
        ended = await operated(at, "ledger", "verify")
        assert (ended.code, ended.out) == (0, f"{origin}: {count} entries are those of its signed checkpoint, and of 0 cosigned ones\n")
        assert json.loads((await operated(at, "ledger", "verify", "--json")).out)["verified"][0]["size"] == count
        with closing(sqlite3.connect(at.site.settings.store.path)) as db, db:
            db.execute("update evidence set pid = 'urn:uuid:other' where sequence = 271")
        ended = await operated(at, "ledger", "verify")
        assert (ended.code, ended.err) == (1, "connector: entry 270 is not the one in the tree\n")
        with closing(sqlite3.connect(at.site.settings.store.path)) as db, db:  # the hash is made to fit
            row = db.execute(f"{SELECT_EVIDENCE} where sequence = 271").fetchone()
            (salt,) = db.execute("select salt from evidence where sequence = 271").fetchone()
            leaf = leaf_hash(entry_of(evidence_of(row), hidden_of(salt, b"")))
            db.execute("update evidence set leaf = ? where sequence = 271", (leaf,))
        ended = await operated(at, "ledger", "verify")
        assert (ended.code, "not those of the checkpoint" in ended.err) == (1, True)


@pytest.mark.asyncio
async def test_the_details_of_an_event_are_erased_for_good_and_the_ledger_is_still_whole(operated: Operated, tmp_path: Path):
    async with pair.running(pair.site(tmp_path / "x", "x", store="sqlite")) as at:
        fact = Evidence("pull", None, "urn:uuid:p", None, None, 1.0, detail={"reasons": ["a name that is nobody's business"]})
        await at.connector.journal.commit(Changes(evidence=(fact,)))
        await at.connector.book.index_of(1)
        ended = await operated(at, "erase", "1")
        assert (ended.code, "the details of event 1 are erased" in ended.out) == (0, True)
        (left,) = await at.evidence("urn:uuid:p")
        assert (left.what, left.detail) == ("pull", {})
        assert (await operated(at, "ledger", "verify")).code == 0
        assert json.loads((await operated(at, "erase", "1", "--json")).out) == {"erased": 1}, "again, and nothing is left to do"
        for number, says, code in (("2", "there is no event 2", 1), ("0", "sequence", 1), ("x", "EVENT", 2)):
            refused = await operated(at, "erase", number)
            assert (refused.code, says in refused.err) == (code, True)


@pytest.mark.parametrize(
    "said", [("usage", "latest"), ("invoice", "latest", "--format", "csv"), ("statement", "latest"), ("evidence", "export", "latest")]
)
def test_the_newest_agreement_need_not_be_named(command: Command, fake: FakeConnector, home: Path, said: tuple[str, ...]):
    fake.answers[("GET", "/v1/agreements")] = (200, {"items": [], "next": None})
    none = command(*said)
    assert (none.code, "there is no agreement yet" in none.err) == (1, True)
    newest = {"id": "urn:a", "peer": "p", "dataset": "d", "provider": "p", "consumer": "c", "document": {}}
    fake.answers[("GET", "/v1/agreements")] = (200, {"items": [newest], "next": "c"})
    command(*said)
    assert [path for path in fake.paths() if path.startswith("GET /v1/agreements?")] == ["GET /v1/agreements?limit=1"] * 2
    assert fake.paths()[-1].partition("?")[0].split("/", 2)[2].startswith("agreements/urn%3Aa/")
    assert list(home.glob("*.evidence.jsonl")) == [], "nothing is left of an export that was refused"


def test_the_ledger_of_a_participant_is_trusted_again_by_name_or_id(command: Command, fake: FakeConnector, home: Path):
    known = [{"id": "did:web:a.example", "name": "a", "role": "r", "protocol": None}]
    fake.answers |= {
        ("GET", "/v1/participants"): (200, {"items": known, "next": None}),
        ("POST", "/v1/ledger/witnesses/did%3Aweb%3Aa.example/forgive"): (200, {"forgiven": "did:web:a.example"}),
    }
    assert command("ledger", "forgive", "a").out == "what a signed last counts from now on\n"
    assert json.loads(command("ledger", "forgive", "did:web:a.example", "--json").out) == {"forgiven": "did:web:a.example"}
    fake.answers[("POST", "/v1/ledger/witnesses/b/forgive")] = (404, problem(404, "not-found", "nothing that `b` has signed"))
    assert command("ledger", "forgive", "b").code == 1
