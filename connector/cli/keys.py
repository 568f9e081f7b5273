"""`connector keys`: the keys that we sign with, a new one, and the end of an old one. It works on the files; a connector that runs reads
them again at `connector reload`."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from connector.cli import show
from connector.cli.init import PUBLIC_MODE, description
from connector.cli.session import Common, read_settings
from connector.errors import InvalidRequest, SettingsError

if TYPE_CHECKING:
    from connector.adapters.keys import Keys
    from connector.settings import Settings

DAY_SECONDS = 86_400.0  # until a new key signs, unless somebody says when: for our peers to take our self-description
NOW, ENDED = "now", "has ended"


def keys(
    action: Literal["list", "new", "retire"] = "list",
    key: str | None = None,
    *,
    at: str | None = None,
    common: Common | None = None,
) -> None:
    """List the keys that we sign with, make a new one, or end an old one.

    To change over: `connector keys new`, give our new self-description to the peers before the new key signs, then `connector keys retire
    OLD`. Both write the files of keys and our self-description, and keep only the public half of keys that have ended, as `connector keys
    new` does of keys that were lost; `connector reload` lets a connector that runs read them.

    Parameters
    ----------
    action
        list, new or retire
    key
        which one to retire, as the list shows it; of one that has ended already only the public half is kept
    at
        instant or day (UTC), or `now`. Of a new key when it begins to sign: default in a day, time for peers to take our self-description,
        and now where none signs; of an old one when it ends: default now
    """
    from connector.adapters.keys import SUFFIX, Keys, changing, forget, generate, keep_lost

    common = common or Common()
    settings = read_settings(common, look_at_files=False)
    folder, own, now = settings.keys.directory, settings.participant.id, time.time()
    if action == "list":
        if key is not None or at is not None:
            raise InvalidRequest("the list takes no key and no `--at`; write `keys new`, or `keys retire KEY`")
        _list(Keys(folder, own), now, common)
        return
    if action == "new" and key is not None:
        raise InvalidRequest("a new key gets a name of its own; write `keys new`, and when it begins to sign with `--at`")
    if action == "retire" and key is None:
        raise InvalidRequest("which key ends? write `keys retire KEY`; `connector keys` shows them")
    said = _instant(at, now + DAY_SECONDS if action == "new" else now, now)
    kept: list[str] | None = None
    with changing(folder, make=key is None):
        lost = key is None and not any(path.suffix == SUFFIX for path in folder.iterdir())
        held = None if lost else Keys(folder, own)  # nothing is changed where something cannot be read
        if key is None or held is None:
            if at is None and (held is None or not _signs(held, now)):
                said = now  # nothing else would sign until then
            kept = keep_lost(folder, _in_description(settings), now)
            key, at_once = generate(folder, now, said), said <= now
            told, until = {"signs from": said}, "at once" if at_once else f"before {show.instant(said)}"
        else:
            said = _retired(held, folder, f"{own}#{key}", said, explicit=at is not None)
            told, until = {"ends": said}, "when it has ended" if said > now else "at once"
        forgotten = forget(folder, own, time.time())  # by now it has ended, if it ends now
        path = _described(settings)
    _told(key, told, path, kept, forgotten, until, common)
    if lost and not kept and not common.json:
        show.note(
            "nobody can verify any more what the keys that were lost have signed, as our self-description did not have them: put one into "
            "its place that does, such as a peer's copy, and write `connector keys new` again"
        )
    if action == "retire" and (said >= now or at is not None) and said < now + settings.edr.token_seconds and not common.json:
        show.note(
            f"tokens of transfers that it signed end with it; each is renewed within {settings.edr.token_seconds:g} seconds, and "
            "a key that ends that long after the next one has begun to sign cuts no transfer"
        )


def _retired(held: Keys, folder: Path, kid: str, ends: float, *, explicit: bool) -> float:
    """End a key, and say when it ends. One that has ended before stays as it is, unless its end is to be another. Raises SettingsError."""
    from connector.adapters.keys import retire

    known = next((each for each in held.public() if each.kid == kid), None)
    if known is not None and known.not_after is not None and known.not_after < ends and not explicit:
        return known.not_after
    _demand_another(held, kid, ends)
    retire(folder, kid.partition("#")[2], ends)
    return ends


def _list(held: Keys, now: float, common: Common) -> None:
    secret = held.secret()
    signs = held.active(now).kid if _signs(held, now) else None
    rows = [(key.kid.partition("#")[2], _standing(key, now, signs), key.not_before, key.not_after) for key in held.public()]
    left = [row[0] for key, row in zip(held.public(), rows, strict=True) if row[1] == ENDED and key.kid in secret]
    if common.json:
        items = [
            {"key": name, "state": state, "not_before": _written(begins), "not_after": _written(ends), "secret": key.kid in secret}
            for key, (name, state, begins, ends) in zip(held.public(), rows, strict=True)
        ]
        show.document({"items": items})
        return
    show.table(("KEY", "STATE", "FROM", "UNTIL"), [(a, b, _said(c), _said(d)) for a, b, c, d in rows], "there is no key")
    for name in left:
        show.note(f"the secret of `{name}` is still in its file; `connector keys retire {name}` keeps only its public half")


def _signs(held: Keys, now: float) -> bool:
    """Whether there is a key to sign with."""
    secret = held.secret()
    return any(key.valid(now) and key.kid in secret for key in held.public())


def _standing(key: Any, now: float, signs: str | None) -> str:
    if key.not_before is not None and now < key.not_before:
        return "will sign"
    if key.not_after is not None and key.not_after < now:
        return ENDED
    return "signs" if key.kid == signs else "is taken"


def _said(at: float | None) -> str | None:
    return show.instant(at) if at is not None else None


def _written(at: float | None) -> str | None:
    """An instant for programs, as the API writes it (RFC 3339)."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z") if at is not None else None


def _demand_another(held: Keys, kid: str, ends: float) -> None:
    """Raise SettingsError if at any time from then on nothing would sign once this key has ended, or if it has ended before."""
    known = {key.kid: key for key in held.public()}
    if (key := known.get(kid)) is not None and key.not_after is not None and key.not_after < ends:
        raise SettingsError(f"key `{kid.partition('#')[2]}` ends at {show.instant(key.not_after)}; an end can be made earlier, never later")
    others, at = [other for other in known.values() if other.kid != kid], ends
    while kid in known:
        going = [other.not_after for other in others if other.valid(at) and (other.not_after is None or other.not_after > at)]
        if not going:
            raise SettingsError(
                f"no other key would sign at {show.instant(at)}, and nothing was changed; make one with `connector keys new`, "
                "or end this one later"
            )
        if None in going:
            return
        at = max(end for end in going if end is not None)  # from then on it takes another one


def _instant(said: str | None, default: float, now: float) -> float:
    """POSIX seconds of an instant or a day. Raises InvalidRequest."""
    if said is None or said == NOW:
        return default if said is None else now
    try:
        at = datetime.fromisoformat(said)
        seconds = (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()
        datetime.fromtimestamp(seconds, UTC)  # in its zone there may be an instant that lies before or behind all years of ours
        return seconds
    except (ValueError, OverflowError):
        raise InvalidRequest(f"`--at {said}` is no instant; write 2026-01-31T12:00:00Z, 2026-01-31, or `{NOW}`") from None


def _described(settings: Settings) -> Path:
    """Write our self-description with the keys that there are. What somebody has added to it stays."""
    from connector.adapters.keys import replace_file

    path = _description_of(settings)
    text = json.dumps(_before(path) | json.loads(description(settings)), indent=2, ensure_ascii=False) + "\n"
    try:
        replace_file(path, text.encode(), PUBLIC_MODE)
    except SettingsError as error:
        raise SettingsError(f"{error.message}; the key is done, our self-description is of before") from None
    return path


def _description_of(settings: Settings) -> Path:
    return settings.registry.directory / f"{settings.participant.name}.jsonld"


def _in_description(settings: Settings) -> tuple[Any, ...]:
    """The keys in our self-description as it is; none if there is none that can be used."""
    from connector.adapters import registry

    member, _ = registry.parse(_before(_description_of(settings)))
    return member.keys if member is not None and member.participant.id == settings.participant.id else ()


def _told(key: str, at: dict[str, float], path: Path, kept: list[str] | None, forgotten: list[str], until: str, common: Common) -> None:
    """Say what was done, and what is to be done next."""
    if common.json:
        said = {name.replace(" ", "_"): _written(instant) for name, instant in at.items()}
        show.document({"key": key, **said, "description": str(path), **({} if kept is None else {"lost": kept}), "forgotten": forgotten})
        return
    show.facts({"key": key, **{name: show.instant(instant) for name, instant in at.items()}, "self-description": str(path)})
    for name in kept or ():
        show.note(f"of `{name}`, whose file was lost, the public half is kept as our self-description has it, and it has ended")
    for name in forgotten:
        show.note(f"of `{name}`, which has ended, only the public half is kept; copies of its file, such as backups, have its secret still")
    show.note(f"next: `connector reload` where it runs, and give the self-description to your peers {until}")


def _before(path: Path) -> dict[str, Any]:
    """The self-description as it was; nothing if there was none that is JSON. Raises SettingsError."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    except OSError as error:
        raise SettingsError(f"`{path}` cannot be read: {error.strerror}; the file must be ours to read") from None
    return found if isinstance(found, dict) else {}
