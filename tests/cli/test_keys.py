"""`connector keys`: a change of keys as an operator makes it, and what would leave a connector without one."""

import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from connector.adapters import keys, registry
from tests.cli.conftest import Command, Ended

HERE = ("--config", "x/connector.toml")
DID = "did:web:hospital.example"


@pytest.fixture
def made(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a new connector."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("QIAO_CONFIG", raising=False)
    assert command("init", "--name", "hospital", "--id", DID, "--role", "hospital", "--directory", "x", "--development").code == 0
    return tmp_path / "x"


def listed(command: Command) -> list[dict[str, str]]:
    return json.loads(command("keys", "--json", *HERE).out)["items"]


def described(made: Path) -> set[str]:
    """The keys in our self-description, which is one that peers can use."""
    member, findings = registry.parse(json.loads((made / "participants" / "hospital.jsonld").read_text()))
    assert (findings, member is not None) == ([], True)
    return {key.kid.partition("#")[2] for key in member.keys} if member else set()


def retired(command: Command, key: str, at: str | None = None) -> Ended:
    return command("keys", "retire", key, *(("--at", at) if at else ()), *HERE)


def test_a_key_takes_the_place_of_another_and_peers_can_be_told_before(command: Command, made: Path):
    (old,) = listed(command)
    assert (old["state"], old["not_after"]) == ("signs", None)
    said = command("keys", "new", *HERE)
    assert (said.code, "connector reload" in said.err, "participants/hospital.jsonld" in said.out) == (0, True, True)
    new = next(each for each in listed(command) if each["key"] != old["key"])
    begins = datetime.fromisoformat(new["not_before"])
    assert new["state"] == "will sign"
    assert timedelta(hours=23) < begins - datetime.now(UTC) <= timedelta(days=1)
    assert described(made) == {old["key"], new["key"]}
    assert keys.Keys(made / "keys", DID).active(time.time()).kid == f"{DID}#{old['key']}"
    day_after = (begins + timedelta(days=1)).isoformat()
    assert retired(command, old["key"], day_after).code == 0
    assert keys.Keys(made / "keys", DID).active(begins.timestamp() + 1).kid == f"{DID}#{new['key']}"
    assert [each["not_after"] is not None for each in sorted(listed(command), key=lambda each: each["key"] != old["key"])] == [True, False]


def test_a_key_that_may_be_known_to_others_ends_at_once(command: Command, made: Path):
    (old,) = listed(command)
    assert command("keys", "new", "--at", "now", *HERE).code == 0
    assert "cuts no transfer" not in retired(command, old["key"], "2097-01-01").err
    said = json.loads(command("keys", "retire", old["key"], "--json", *HERE).out)
    assert set(said) == {"key", "ends", "description", "forgotten"}
    while {each["key"]: each["state"] for each in listed(command)}[old["key"]] != "has ended":
        assert time.time() < datetime.fromisoformat(said["ends"]).timestamp() + 5
    new = next(each for each in listed(command) if each["key"] != old["key"])
    assert new["state"] == "signs"
    assert described(made) == {old["key"], new["key"]}  # what it has signed can be verified as long as anybody asks


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("retire", "OLD"), "no other key would sign at"),
        (("retire", "OLD", "--at", "2099-01-01"), "no other key would sign at 2099-01-01 00:00:00Z"),
        (("retire", "nothing"), "there is no key `nothing`"),
        (("retire", "../../etc/passwd"), "there is no key"),
        (("retire",), "which key ends"),
        (("new", "x"), "gets a name of its own"),
        (("new", "--at", "soon"), "`--at soon` is no instant"),
        (("new", "--at", "9999-12-31T23:59:59-01:00"), "-01:00` is no instant"),
        (("new", "--at", "0001-01-01T00:00:00+01:00"), "+01:00` is no instant"),
        (("new", "--at", "9999-12-31T23:59:59.999999Z"), "999999Z` is no instant"),
        (("list", "x"), "takes no key"),
    ],
)
def test_what_cannot_be_is_said_and_changes_nothing(command: Command, made: Path, arguments: tuple[str, ...], says: str):
    (old,) = listed(command)
    before = {path: path.read_bytes() for path in made.rglob("*") if path.is_file()}
    ended = command("keys", *[old["key"] if word == "OLD" else word for word in arguments], *HERE)
    assert (ended.code, says in ended.err, ended.out) == (1, True, "")
    assert {path: path.read_bytes() for path in made.rglob("*") if path.is_file()} == before


def test_an_end_is_never_moved_back(command: Command, made: Path):
    (old,) = listed(command)
    assert command("keys", "new", "--at", "now", *HERE).code == 0
    assert retired(command, old["key"], "2098-01-01").code == 0
    later = retired(command, old["key"], "2099-01-01")
    assert (later.code, "an end can be made earlier, never later" in later.err) == (1, True)
    assert retired(command, old["key"], "2097-01-01").code == 0
    assert "2097-01-01 00:00:00Z" in command("keys", *HERE).out


def test_a_key_whose_successor_ends_itself_is_still_needed(command: Command, made: Path):
    (old,) = listed(command)
    new = json.loads(command("keys", "new", "--at", "now", "--json", *HERE).out)["key"]
    assert retired(command, new, "2090-01-01").code == 0
    refused = retired(command, old["key"])
    assert (refused.code, "cuts no transfer" in refused.err) == (1, False)
    assert "no other key would sign at 2090-01-01 00:00:00Z" in refused.err
    assert {each["key"] for each in listed(command)} == {old["key"], new}
    third = json.loads(command("keys", "new", "--at", "2089-12-31", "--json", *HERE).out)["key"]
    ended = retired(command, old["key"])
    assert (ended.code, "cuts no transfer" in ended.err) == (0, True)
    assert third in {each["key"] for each in listed(command)}


def test_of_a_key_that_has_ended_only_the_public_half_is_kept(command: Command, made: Path):
    (old,) = listed(command)
    file = made / "keys" / f"{old['key']}.key"
    before = keys.Keys(made / "keys", DID).public()[0].public
    seed = json.loads(file.read_text())["seed"]
    assert command("keys", "new", "--at", "now", *HERE).code == 0
    ended = retired(command, old["key"])
    assert (ended.code, "only the public half is kept" in ended.err) == (0, True)
    assert not any(seed.encode() in path.read_bytes() for path in made.rglob("*") if path.is_file())
    after = {key.kid.partition("#")[2]: key for key in keys.Keys(made / "keys", DID).public()}
    assert (after[old["key"]].public, after[old["key"]].not_after is not None) == (before, True)
    assert file.stat().st_mode & 0o777 == 0o600
    assert old["key"] in described(made)
    again = json.loads(command("keys", "retire", old["key"], "--json", *HERE).out)
    assert (again["forgotten"], {each["key"]: each["not_after"] for each in listed(command)}[old["key"]]) == ([], again["ends"])


def test_a_planned_end_takes_the_secret_with_the_next_change_and_the_list_says_what_is_left(
    command: Command, made: Path, monkeypatch: pytest.MonkeyPatch
):
    (old,) = listed(command)
    soon = (datetime.now(UTC) + timedelta(days=2)).isoformat()
    assert command("keys", "new", *HERE).code == 0
    assert "only the public half" not in retired(command, old["key"], soon).err
    assert "still in its file" not in command("keys", *HERE).err
    later = time.time() + timedelta(days=3).total_seconds()
    monkeypatch.setattr("connector.cli.keys.time.time", lambda: later)
    assert f"the secret of `{old['key']}` is still in its file" in command("keys", *HERE).err
    assert json.loads(command("keys", "new", "--json", *HERE).out)["forgotten"] == [old["key"]]
    assert "still in its file" not in command("keys", *HERE).err
    assert {each["key"]: each["secret"] for each in listed(command)}[old["key"]] is False
    assert len(described(made)) == 3


def test_of_two_who_each_end_a_key_because_the_other_stays_one_is_refused(command: Command, made: Path):
    (old,) = listed(command)
    new = json.loads(command("keys", "new", "--at", "now", "--json", *HERE).out)["key"]
    with keys.changing(made / "keys"):
        both = [subprocess.Popen([sys.executable, "-m", "connector", "keys", "retire", each, *HERE]) for each in (old["key"], new)]
        with pytest.raises(subprocess.TimeoutExpired):
            both[0].wait(1.5)
    codes = sorted(each.wait(30) for each in both)
    assert codes == [0, 1]
    assert sorted(each["state"] for each in listed(command)) == ["has ended", "signs"]


def test_no_secret_is_shown(command: Command, made: Path):
    (file,) = (made / "keys").glob("*.key")
    seed = json.loads(file.read_text())["seed"]
    for said in (command("keys", *HERE), command("keys", "new", *HERE), command("keys", "--json", *HERE)):
        assert seed not in said.out + said.err


def test_what_was_added_to_our_self_description_stays_in_it(command: Command, made: Path):
    file = made / "participants" / "hospital.jsonld"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"dct:description": "a hospital"}))
    assert command("keys", "new", *HERE).code == 0
    assert json.loads(file.read_text())["dct:description"] == "a hospital"
    assert len(described(made)) == 2
    file.unlink()
    assert command("keys", "new", *HERE).code == 0
    assert len(described(made)) == 3


def test_keys_that_were_lost_have_a_successor_that_signs_at_once(command: Command, made: Path):
    (lost,) = (made / "keys").iterdir()
    for gone in (lost.unlink, (made / "keys").rmdir):
        gone()
        refused = command("check", *HERE)
        assert (refused.code, "`connector keys new`" in refused.err) == (1, True)
    said = command("keys", "new", *HERE)
    assert (said.code, "give the self-description to your peers at once" in said.err) == (0, True)
    states = {each["key"]: (each["state"], each["secret"]) for each in listed(command)}
    assert states.pop(lost.stem) == ("has ended", False)
    (new,) = states
    assert (states[new], described(made), command("check", *HERE).code) == (("signs", True), {new, lost.stem}, 0)


def test_what_a_lost_key_has_signed_can_be_verified_still_and_nothing_that_it_signs_from_now_on(command: Command, made: Path):
    (lost,) = (made / "keys").iterdir()
    public = keys.Keys(made / "keys", DID).active(time.time()).key.public
    lost.unlink()
    assert lost.stem in command("keys", "new", *HERE).err
    again = command("keys", "new", *HERE)  # it has ended once
    assert (again.code, lost.stem in again.err) == (0, False)
    member, _ = registry.parse(json.loads((made / "participants" / "hospital.jsonld").read_text()))
    assert member is not None
    kept = next(key for key in member.keys if key.kid == f"{DID}#{lost.stem}")
    assert (kept.public, kept.valid(time.time() - 60), kept.valid(time.time() + 1)) == (public, True, False)


def test_where_nothing_is_left_of_a_lost_key_it_is_said_and_a_copy_of_our_self_description_mends_it(command: Command, made: Path):
    (lost,), file = (made / "keys").iterdir(), made / "participants" / "hospital.jsonld"
    copy = file.read_text()
    lost.unlink()
    file.unlink()
    assert "such as a peer's copy" in command("keys", "new", *HERE).err
    file.write_text(copy)
    assert "such as a peer's copy" not in command("keys", "new", *HERE).err
    assert lost.stem in described(made)


def test_our_self_description_is_for_nobody_else_to_write_whatever_umask_there_is(command: Command, made: Path):
    before = os.umask(0)
    try:
        assert command("keys", "new", *HERE).code == 0
    finally:
        os.umask(before)
    assert (made / "participants" / "hospital.jsonld").stat().st_mode & 0o777 == 0o644
