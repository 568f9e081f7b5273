import base64
import os
import stat
from pathlib import Path

import orjson
import pytest

from connector.adapters.keys import Keys, changing, forget, generate, retire
from connector.errors import SettingsError
from connector.signatures.jws import open, sign

DID = "did:web:hospital.example"
NOW = 1_800_000_000.0
DAY = 86_400.0


def seed_of(directory: Path, fragment: str) -> str:
    return orjson.loads((directory / f"{fragment}.key").read_bytes())["seed"]


def test_a_made_key_signs_what_its_public_half_verifies(tmp_path: Path):
    fragment = generate(tmp_path / "keys", NOW)
    keys = Keys(tmp_path / "keys", DID)
    active = keys.active(NOW)
    assert active.kid == f"{DID}#{fragment}"
    assert [key.kid for key in keys.public()] == [active.kid]
    assert open(sign({"a": 1}, active, "JWT"), lambda _: keys.public()[0].public, "JWT")[1] == {"a": 1}


def test_files_and_directory_are_for_the_owner_alone(tmp_path: Path):
    umask = os.umask(0)
    try:
        fragment = generate(tmp_path / "keys", NOW)
        retire(tmp_path / "keys", fragment, NOW + DAY)
    finally:
        os.umask(umask)
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700
    assert [path.stat().st_mode & 0o777 for path in (tmp_path / "keys").iterdir()] == [0o600]


def test_the_newest_key_signs_and_all_stand_in_the_description(tmp_path: Path):
    old, new = generate(tmp_path, NOW - DAY), generate(tmp_path, NOW)
    keys = Keys(tmp_path, DID)
    assert keys.active(NOW).kid == f"{DID}#{new}"
    assert [key.kid for key in keys.public()] == [f"{DID}#{new}", f"{DID}#{old}"]


def test_a_key_that_begins_later_is_shown_at_once_and_signs_from_then_on(tmp_path: Path):
    old, new = generate(tmp_path, NOW - DAY), generate(tmp_path, NOW, not_before=NOW + DAY)
    keys = Keys(tmp_path, DID)
    assert {key.kid for key in keys.public()} == {f"{DID}#{old}", f"{DID}#{new}"}
    assert keys.active(NOW).kid == f"{DID}#{old}"
    assert keys.active(NOW + DAY).kid == f"{DID}#{new}"


def test_a_retired_key_signs_no_more_and_is_shown_with_its_end(tmp_path: Path):
    old, new = generate(tmp_path, NOW - DAY), generate(tmp_path, NOW)
    retire(tmp_path, new, NOW + 10)
    keys = Keys(tmp_path, DID)
    assert keys.active(NOW + 10).kid == f"{DID}#{new}"
    assert keys.active(NOW + 11).kid == f"{DID}#{old}"
    assert {key.kid: key.not_after for key in keys.public()} == {f"{DID}#{old}": None, f"{DID}#{new}": NOW + 10}


def test_a_key_counts_from_the_beginning_of_the_second_in_which_it_begins(tmp_path: Path):
    """What is signed carries whole seconds: what a key signed in its first one would be older than the key."""
    generate(tmp_path, NOW + 0.75, not_before=NOW + 0.75)
    (key,) = Keys(tmp_path, DID).public()
    assert key.valid(int(NOW + 0.75))
    assert not key.valid(int(NOW) - 1)


def test_without_a_valid_key_nothing_is_signed(tmp_path: Path):
    retire(tmp_path, generate(tmp_path, NOW), NOW + 1)
    with pytest.raises(SettingsError, match=r"no key .* is valid now; make a new one"):
        Keys(tmp_path, DID).active(NOW + 2)


def test_once_a_key_has_ended_its_secret_goes_and_what_it_has_signed_still_counts(tmp_path: Path):
    old, new = generate(tmp_path, NOW - DAY), generate(tmp_path, NOW)
    running = Keys(tmp_path, DID)
    signed = sign({"a": 1}, Keys(tmp_path, DID).active(NOW - 1), "JWT")
    seed, x = seed_of(tmp_path, old), running.public()[1].public
    retire(tmp_path, old, NOW + 10)
    assert forget(tmp_path, DID, NOW + 9) == []
    assert seed_of(tmp_path, old) == seed
    running.reload()
    assert forget(tmp_path, DID, NOW + 10) == [old]
    assert forget(tmp_path, DID, NOW + 10) == []
    assert not any(seed.encode() in path.read_bytes() for path in tmp_path.iterdir())
    assert [path.stat().st_mode & 0o777 for path in tmp_path.iterdir()] == [0o600, 0o600]
    assert running.reload() == []  # it counts as before
    for keys in (running, Keys(tmp_path, DID)):
        assert keys.secret() == {f"{DID}#{new}"}
        assert [(key.public, key.not_after) for key in keys.public() if key.kid == f"{DID}#{old}"] == [(x, NOW + 10)]
        assert keys.active(NOW).kid == f"{DID}#{new}"
        assert open(signed, {key.kid: key.public for key in keys.public()}.__getitem__, "JWT")[1] == {"a": 1}


def test_the_secret_of_the_last_key_is_never_forgotten(tmp_path: Path):
    only = generate(tmp_path, NOW - DAY)
    retire(tmp_path, only, NOW)
    later = generate(tmp_path, NOW, not_before=NOW + DAY)
    assert forget(tmp_path, DID, NOW + 10) == []  # by a clock that may be wrong
    seed_of(tmp_path, only)
    assert forget(tmp_path, DID, NOW + DAY) == [only]
    assert Keys(tmp_path, DID).active(NOW + DAY).kid == f"{DID}#{later}"


def test_a_public_half_signs_nothing_whatever_the_clock_says(tmp_path: Path):
    old, new = generate(tmp_path, NOW - DAY), generate(tmp_path, NOW)
    retire(tmp_path, old, NOW)
    forget(tmp_path, DID, NOW + 1)
    (tmp_path / f"{new}.key").unlink()
    with pytest.raises(SettingsError, match=r"no key .* is valid now"):
        Keys(tmp_path, DID).active(NOW - 1)


def test_what_was_left_half_written_goes_with_the_seed_in_it(tmp_path: Path):
    left = tmp_path / f".{generate(tmp_path, NOW)}.key.4711"
    left.write_text("seed")
    with changing(tmp_path):
        assert not left.exists()
    with pytest.raises(SettingsError, match="must be ours to read"), changing(tmp_path / "absent"):
        pass


def test_a_key_that_cannot_be_put_in_place_is_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    old, _ = generate(tmp_path, NOW - DAY), generate(tmp_path, NOW)
    retire(tmp_path, old, NOW)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for change in (lambda: forget(tmp_path, DID, NOW + 1), lambda: retire(tmp_path, old, NOW - 1)):
        with pytest.raises(SettingsError, match="No space left on device; it is as it was, its folder"):
            change()
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_key_that_is_in_place_and_not_yet_durable_is_said_to_be_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    old, _ = generate(tmp_path, NOW - DAY), generate(tmp_path, NOW)
    durable = os.fsync

    def of_files(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(5, "Input/output error")
        durable(descriptor)

    monkeypatch.setattr(os, "fsync", of_files)
    with pytest.raises(SettingsError, match=r"is written, and its folder cannot be made durable \(Input/output error\)"):
        retire(tmp_path, old, NOW)
    assert next(key for key in Keys(tmp_path, DID).public() if key.kid == f"{DID}#{old}").not_after == NOW


def test_a_key_whose_folder_cannot_be_opened_is_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    old, _ = generate(tmp_path, NOW - DAY), generate(tmp_path, NOW)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    opened = os.open

    def of_files(path: Path, flags: int, *mode: int) -> int:
        if flags & os.O_DIRECTORY:
            raise PermissionError(13, "Permission denied")
        return opened(path, flags, *mode)

    monkeypatch.setattr(os, "open", of_files)
    with pytest.raises(SettingsError, match=r"cannot be written: Permission denied; it is as it was"):
        retire(tmp_path, old, NOW)
    monkeypatch.undo()
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_reload_says_what_changed(tmp_path: Path):
    first = generate(tmp_path, NOW)
    keys = Keys(tmp_path, DID)
    assert keys.reload() == []
    second = generate(tmp_path, NOW + 1)
    retire(tmp_path, first, NOW + DAY)
    assert keys.reload() == [f"added key `{DID}#{second}`", f"changed key `{DID}#{first}`"]
    (tmp_path / f"{first}.key").unlink()
    assert keys.reload() == [f"removed key `{DID}#{first}`"]
    assert keys.active(NOW + 1).kid == f"{DID}#{second}"


def test_a_broken_file_at_reload_keeps_the_former_keys(tmp_path: Path):
    first = generate(tmp_path, NOW)
    keys = Keys(tmp_path, DID)
    (tmp_path / f"{generate(tmp_path, NOW + 1)}.key").write_text("{")
    with pytest.raises(SettingsError):
        keys.reload()
    assert keys.active(NOW + 2).kid == f"{DID}#{first}"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o610, 0o777])
def test_a_key_that_others_can_touch_is_refused_with_the_remedy(tmp_path: Path, mode: int):
    path = tmp_path / f"{generate(tmp_path, NOW)}.key"
    path.chmod(mode)
    with pytest.raises(SettingsError) as caught:
        Keys(tmp_path, DID)
    assert caught.value.reasons == (f"`{path}` has mode {mode:04o}, others can read the key; run `chmod 600 {path}`",)


SEED = base64.urlsafe_b64encode(bytes(range(32))).rstrip(b"=").decode()


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        (b"", "not a JSON object"),
        (b"[]", "not a JSON object"),
        (b'{"seed": "%s"' % SEED.encode(), "not a JSON object"),
        ({"seed": SEED}, "no `created`"),
        ({"created": "2026-01-01T00:00:00Z"}, "`seed` that is not base64url of 32 bytes"),
        ({"seed": SEED[:-2], "created": "2026-01-01T00:00:00Z"}, "`seed` that is not base64url of 32 bytes"),
        ({"seed": 7, "created": "2026-01-01T00:00:00Z"}, "`seed` that is not base64url of 32 bytes"),
        ({"seed": SEED, "created": "yesterday"}, "`created` that is no instant"),
        ({"seed": SEED, "created": "2026-01-01T00:00:00"}, "`created` that is no instant"),
        ({"seed": SEED, "created": "2026-01-01T00:00:00Z", "notAfter": 5}, "`notAfter` that is no instant"),
        ({"seed": SEED, "created": "2026-01-01T00:00:00Z", "retired": True}, "is not a JSON object with"),
        ({"x": SEED, "created": "2026-01-01T00:00:00Z"}, "an `x`, which takes the place of `seed` once a key has ended"),
        (
            {"x": SEED, "seed": SEED, "created": "2026-01-01T00:00:00Z", "notAfter": "2026-01-02T00:00:00Z"},
            "which takes the place of `seed`",
        ),
        ({"x": SEED[:-2], "created": "2026-01-01T00:00:00Z", "notAfter": "2026-01-02T00:00:00Z"}, "an `x` that is not base64url of 32"),
    ],
)
def test_a_file_that_is_no_key_is_refused_without_its_secret(tmp_path: Path, document: object, problem: str):
    path = tmp_path / "k1.key"
    path.touch(0o600)
    path.write_bytes(document if isinstance(document, bytes) else orjson.dumps(document))
    with pytest.raises(SettingsError) as caught:
        Keys(tmp_path, DID)
    assert problem in caught.value.reasons[0]
    assert str(path) in caught.value.reasons[0]
    assert SEED[:20] not in str(caught.value.reasons)


def test_a_file_name_that_is_no_fragment_is_refused(tmp_path: Path):
    (tmp_path / f"{generate(tmp_path, NOW)}.key").rename(tmp_path / "my key.key")
    with pytest.raises(SettingsError) as caught:
        Keys(tmp_path, DID)
    assert "has a name" in caught.value.reasons[0]


def test_a_directory_without_keys_names_the_remedy(tmp_path: Path):
    for directory in (tmp_path, tmp_path / "absent"):
        with pytest.raises(SettingsError) as caught:
            Keys(directory, DID)
        assert "connector keys new" in caught.value.reasons[0]


@pytest.mark.parametrize("fragment", ["absent", "../absent", ""])
def test_a_key_that_is_not_there_cannot_be_retired(tmp_path: Path, fragment: str):
    with pytest.raises(SettingsError, match="there is no key"):
        retire(tmp_path, fragment, NOW)


def test_a_key_is_never_written_over(tmp_path: Path):
    assert len({generate(tmp_path, NOW) for _ in range(50)}) == len(list(tmp_path.iterdir())) == 50


def test_a_directory_that_cannot_be_written_is_a_clear_error(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="no key can be written"):
        generate(tmp_path / "file", NOW)


def test_no_secret_is_in_any_text(tmp_path: Path):
    fragment = generate(tmp_path, NOW)
    keys = Keys(tmp_path, DID)
    texts = f"{keys!r}{keys}{keys.active(NOW)!r}{keys.public()!r}{keys.reload()}"
    seed = seed_of(tmp_path, fragment)
    raw = base64.urlsafe_b64decode(seed + "=")
    assert seed not in texts
    assert raw.hex() not in texts
    assert repr(raw)[2:-1] not in texts
