import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from connector.adapters.registry import CONTEXT, FILE_BYTES_MAX, Registry, own_description, parse, participant
from connector.errors import SettingsError
from connector.signatures.jws import PublicKey, signing_key, to_jwk

HOSPITAL = "did:web:hospital.example"
BIO = "did:web:bio.example"
KEY = signing_key(f"{HOSPITAL}#k1", bytes(range(32))).key
X = to_jwk(KEY.public)["x"]


def description(id: str = HOSPITAL, name: str = "hospital", **changes: Any) -> dict[str, Any]:
    own = participant(id, name, "hospital", f"https://{name}.example/dsp/2025-1", ["https://edge.example:8443/in"])
    return {**own_description(own, f"https://{name}.example:8443", [PublicKey(f"{id}#k1", KEY.public)]), **changes}


def put(directory: Path, name: str, document: Any) -> None:
    (directory / f"{name}.jsonld").write_bytes(document if isinstance(document, bytes) else orjson.dumps(document))


def test_a_description_that_we_serve_is_one_that_we_read(tmp_path: Path):
    keys = [PublicKey(f"{HOSPITAL}#k1", KEY.public, 1_800_000_000.5, 1_900_000_000.0), PublicKey(f"{HOSPITAL}#k2", KEY.public)]
    own = participant(HOSPITAL, "hospital", "hospital", "https://h.example/dsp/2025-1", ["https://edge.example:8443"])
    member, found = parse(orjson.loads(orjson.dumps(own_description(own, "https://h.example:8443/data", keys))))
    assert found == []
    assert member is not None
    assert member.participant == own
    assert member.data == "https://h.example:8443/data"
    assert list(member.keys) == keys


def test_a_key_for_each_day_of_seven_years_is_read_and_a_file_without_end_is_not(tmp_path: Path):
    keys = [PublicKey(f"{HOSPITAL}#20260131T120000Z-{n:08x}", KEY.public, 86_400.0 * n, 86_400.0 * (n + 2)) for n in range(7 * 365)]
    own = participant(HOSPITAL, "hospital", "hospital", "https://hospital.example/dsp/2025-1")
    put(tmp_path, "a", json.dumps(own_description(own, None, keys), indent=2).encode())  # as the command line writes it
    assert list(Registry(tmp_path).keys(HOSPITAL)) == keys
    put(tmp_path, "b", b" " * (FILE_BYTES_MAX + 1))
    with pytest.raises(SettingsError) as caught:
        Registry(tmp_path)
    assert "is larger than" in caught.value.reasons[0]


def test_a_participant_is_found_by_id_and_by_name(tmp_path: Path):
    put(tmp_path, "a", description())
    put(tmp_path, "b", description(BIO, "bio"))
    registry = Registry(tmp_path)
    hospital = registry.find("hospital")
    assert hospital is not None
    assert hospital is registry.find(HOSPITAL)
    assert hospital.protocol == "https://hospital.example/dsp/2025-1"
    assert hospital.origins == ("https://hospital.example", "https://edge.example:8443")
    assert hospital.claims == {"id": HOSPITAL, "name": "hospital", "role": "hospital"}
    assert [each.id for each in registry.participants()] == [BIO, HOSPITAL]
    assert registry.key(f"{HOSPITAL}#k1") == KEY
    assert registry.find("stranger") is None
    assert registry.key(f"{HOSPITAL}#k2") is None


def test_an_empty_registry_knows_nobody_and_an_absent_one_is_an_error(tmp_path: Path):
    assert Registry(tmp_path).participants() == ()
    with pytest.raises(SettingsError, match="must be there, and ours to read"):
        Registry(tmp_path / "absent")


def test_files_that_are_no_descriptions_are_left_alone(tmp_path: Path):
    (tmp_path / "README.md").write_text("how we got these")
    put(tmp_path, "a", description())
    assert len(Registry(tmp_path).participants()) == 1


def test_reload_takes_what_was_added_changed_and_removed(tmp_path: Path):
    put(tmp_path, "a", description())
    put(tmp_path, "b", description(BIO, "bio"))
    registry = Registry(tmp_path)
    heard: list[str] = []
    registry.listen(heard.append)
    assert [key.kid for key in registry.keys(HOSPITAL)] == [f"{HOSPITAL}#k1"]
    assert (registry.reload(), heard, registry.keys("did:web:nobody.example")) == ([], [], ())
    put(tmp_path, "a", description(keys=[{"@id": f"{HOSPITAL}#k2", "@type": "JsonWebKey", "publicKeyJwk": to_jwk(KEY.public)}]))
    put(tmp_path, "c", description("did:web:lab.example", "lab"))
    (tmp_path / "b.jsonld").unlink()
    changed = (
        f"changed `{HOSPITAL}`; nothing that `{HOSPITAL}#k1` has signed can be verified any more: "
        "ask for a self-description with its `notAfter`"
    )
    assert registry.reload() == ["added `did:web:lab.example` (`lab`)", changed, f"removed `{BIO}`"]
    assert heard == sorted([BIO, "did:web:lab.example", HOSPITAL]), "each once, and nobody else"
    assert registry.find("bio") is None
    assert registry.key(f"{HOSPITAL}#k1") is None
    assert [key.kid for key in registry.keys(HOSPITAL)] == [f"{HOSPITAL}#k2"]
    assert registry.key(f"{HOSPITAL}#k2") is not None


def test_a_broken_file_at_reload_keeps_all_of_the_former_state(tmp_path: Path):
    put(tmp_path, "a", description())
    registry = Registry(tmp_path)
    put(tmp_path, "b", description(BIO, "bio"))
    put(tmp_path, "c", b"{")
    heard: list[str] = []
    registry.listen(heard.append)
    with pytest.raises(SettingsError) as caught:
        registry.reload()
    assert len(caught.value.reasons) == 1
    assert "`c.jsonld`: is not JSON" in caught.value.reasons[0]
    assert ([each.id for each in registry.participants()], heard) == ([HOSPITAL], [])
    (tmp_path / "c.jsonld").unlink()
    assert registry.reload() == [f"added `{BIO}` (`bio`)"]


@pytest.mark.parametrize(("field", "other"), [("@id", (HOSPITAL, "other")), ("name", (BIO, "hospital"))])
def test_ids_and_names_are_unique(tmp_path: Path, field: str, other: tuple[str, str]):
    put(tmp_path, "a", description())
    put(tmp_path, "b", description(*other))
    with pytest.raises(SettingsError) as caught:
        Registry(tmp_path)
    assert any(r.startswith(f"`b.jsonld`: `{field}` is ") and "`a.jsonld` has already" in r for r in caught.value.reasons)


def changed(path: list[str | int], value: Any) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        place: Any = document
        for step in path[:-1]:
            place = place[step]
        if value is None:
            del place[path[-1]]
        else:
            place[path[-1]] = value

    return change


MISTAKES = [
    (["@context"], None, "`@context` is not the one"),
    (["@context"], CONTEXT[0], "`@context` is not the one"),
    (["@context"], [CONTEXT[0]], "`@context` is not the one"),
    (["@context", 1, "name"], "dct:title", "`@context` is not the one"),
    (["@context"], [*CONTEXT, "https://evil.example/context"], "`@context` is not the one"),
    (["@type"], None, "`@type` is not"),
    (["@type"], "Catalog", "`@type` is not"),
    (["@id"], None, "`@id` is not a DID"),
    (["@id"], "https://hospital.example", "`@id` is not a DID"),
    (["@id"], "did:web:", "`@id` is not a DID"),
    (["@id"], "did:web:" + "a" * 600, "`@id` is not a DID"),
    (["name"], None, "`name` is not a short name"),
    (["name"], "", "`name` is not a short name"),
    (["name"], "did:web:other", "`name` is not a short name"),
    (["name"], "two words", "`name` is not a short name"),
    (["name"], 5, "`name` is not a short name"),
    (["role"], None, "`role` is not a role"),
    (["role"], " ", "`role` is not a role"),
    (["role"], "a\x1b[31mb", "`role` is not a role"),
    (["roel"], "hospital", "`roel` is not a member; write `role`"),
    (["xyzzy"], 1, "`xyzzy` is not a member; take it out"),
    (["endpoints"], None, "`endpoints` is not an object"),
    (["endpoints"], "https://h.example", "`endpoints` is not an object"),
    (["endpoints", "protocol"], None, "`endpoints.protocol` is missing"),
    (["endpoints", "protocol"], "h.example/dsp", "`endpoints.protocol` does not begin with https://"),
    (["endpoints", "protocol"], "https://u:p@h.example/dsp", "`endpoints.protocol` has a user name"),
    (["endpoints", "protocol"], "https://h.example/dsp?x=1", "`endpoints.protocol` has a query"),
    (["endpoints", "protocol"], "https://h.example/dsp#x", "`endpoints.protocol` has a query or a fragment"),
    (["endpoints", "data"], 7, "`endpoints.data` is missing"),
    (["endpoints", "dat"], "https://h.example", "`endpoints.dat` is not a member; write `data`"),
    (["endpoints", "callbacks"], "https://h.example", "`endpoints.callbacks` is not an array"),
    (["endpoints", "callbacks"], ["ftp://h.example"], "`endpoints.callbacks[0]` does not begin"),
    (["keys"], None, "`keys` is not an array"),
    (["keys"], [], "`keys` is not an array with at least one key"),
    (["keys"], ["k1"], "`keys[0]` is not an object"),
    (["keys", 0, "@id"], None, "`keys[0].@id` is not a key of this participant"),
    (["keys", 0, "@id"], f"{BIO}#k1", "`keys[0].@id` is not a key of this participant"),
    (["keys", 0, "@id"], HOSPITAL, "`keys[0].@id` is not a key of this participant"),
    (["keys", 0, "@id"], f"{HOSPITAL}#a b", "`keys[0].@id` is not a key of this participant"),
    (["keys", 0, "@type"], "Multikey", "`keys[0].@type` is not"),
    (["keys", 0, "publicKeyJwk"], None, "`keys[0].publicKeyJwk` is not an object"),
    (["keys", 0, "publicKeyJwk", "x"], X[:-1], "`keys[0].publicKeyJwk` has an `x`"),
    (["keys", 0, "publicKeyJwk", "d"], X, "`keys[0].publicKeyJwk` contains a private key"),
    (["keys", 0, "notAfter"], "soon", "`keys[0].notAfter` is no instant"),
    (["keys", 0, "notBefore"], "2026-01-01", "`keys[0].notBefore` is no instant"),
    (["keys", 0, "notbefore"], "2026-01-01T00:00:00Z", "`keys[0].notbefore` is not a member; write `notBefore`"),
]


@pytest.mark.parametrize(("path", "value", "problem"), MISTAKES)
def test_a_mistake_is_named_with_file_field_and_remedy(tmp_path: Path, path: list[str | int], value: Any, problem: str):
    document = copy.deepcopy(description())
    changed(path, value)(document)
    put(tmp_path, "hospital", document)
    with pytest.raises(SettingsError) as caught:
        Registry(tmp_path)
    assert any(reason.startswith(f"`hospital.jsonld`: {problem}") for reason in caught.value.reasons), caught.value.reasons


def test_a_key_that_ends_before_it_begins_or_stands_twice_is_refused():
    entry = {"@id": f"{HOSPITAL}#k1", "@type": "JsonWebKey", "publicKeyJwk": to_jwk(KEY.public)}
    times = {"notBefore": "2026-02-01T00:00:00Z", "notAfter": "2026-01-01T00:00:00Z"}
    assert "never be valid" in parse(description(keys=[{**entry, **times}]))[1][0]
    assert "there twice" in parse(description(keys=[entry, entry]))[1][0]


def test_all_mistakes_of_all_files_are_reported_together(tmp_path: Path):
    put(tmp_path, "a", description(name="", role=""))
    put(tmp_path, "b", [])
    put(tmp_path, "c", b" " * 70_000)
    with pytest.raises(SettingsError) as caught:
        Registry(tmp_path)
    assert [reason.split(":")[0] for reason in caught.value.reasons] == ["`a.jsonld`", "`a.jsonld`", "`b.jsonld`", "`c.jsonld`"]


def test_members_with_a_prefix_are_anybodys_to_add():
    assert parse(description(**{"dct:description": "a hospital"}))[1] == []


def test_a_description_is_json_ld_under_bundled_contexts_and_loses_nothing():
    from pyld import jsonld

    from connector.vocabulary import read_vocabulary

    contexts = read_vocabulary().contexts

    def load(url: str, _options: Any) -> dict[str, Any]:
        return {"contentType": "application/ld+json", "contextUrl": None, "documentUrl": url, "document": contexts[url]}

    document = description(keys=[{**description()["keys"][0], "notAfter": "2030-01-01T00:00:00Z"}])
    (node,) = jsonld.expand(document, {"documentLoader": load})
    text = orjson.dumps(node).decode()
    assert node["@id"] == HOSPITAL
    assert node["@type"] == ["http://purl.org/dc/terms/Agent"]
    assert node["https://w3id.org/security#verificationMethod"][0]["https://w3id.org/security#publicKeyJwk"][0]["@value"] == to_jwk(
        KEY.public
    )
    for value in (
        "hospital",
        "https://hospital.example/dsp/2025-1",
        "https://hospital.example:8443",
        "https://edge.example:8443",
        "2030-01-01",
    ):
        assert value in text
    compacted = jsonld.compact(node, CONTEXT, {"documentLoader": load})
    assert {member: compacted[member] for member in document if member != "keys"} == {m: document[m] for m in document if m != "keys"}
    assert compacted["keys"] == document["keys"]
