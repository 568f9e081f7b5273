"""`connector init`: everything a new connector needs, written once and never over something. `connector token`: another admin token, for
one that was lost, or that others know; it works on the files, as who has lost it can ask nothing of a connector that runs."""

from __future__ import annotations

import hashlib
import json
import secrets
import time
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from connector.cli import show
from connector.cli.session import TOKEN_FILE, Common, read_settings
from connector.errors import SettingsError

if TYPE_CHECKING:
    from connector.settings import Settings

TOKEN_BYTES = 32  # as many as its SHA-256: guessing the token is no easier than finding a collision
SECRET_MODE, PUBLIC_MODE = 0o600, 0o644
FOLDER_MODE = 0o755  # whoever can write to the registry says whom we trust, whatever umask there is
REACHED = "in connector.toml give protocol and data a certificate and a host that peers reach, or put a proxy that speaks TLS before them"
DSP_PATH = "/dsp/2025-1"  # below the protocol listener's address, where peers send their messages
LISTENERS_DO: Mapping[str, str] = {
    "protocol": "Here peers send the messages of the protocol.",
    "data": "Here peers fetch the data.",
    "management": "Here the command line and other programs of the operator command this connector.",
    "ops": "Here probes ask whether it is alive and ready, and metrics are read.",
}
LISTENERS = tuple(LISTENERS_DO)  # on consecutive ports, from the one given
PORT_MAX = 65535 - len(LISTENERS) + 1
DEVELOPMENT: Mapping[str, Any] = {
    "egress.allow": ["127.0.0.0/8", "::1/128"],
    "egress.http": True,
    "egress.ports": [],
    "telemetry.log_format": "console",
}


def init(
    *,
    name: str,
    id: str,
    role: str,
    directory: Path = Path("."),
    port: int = 8080,
    host: str | None = None,
    development: Annotated[bool, Parameter(negative=())] = False,
    save_token: Annotated[bool, Parameter(negative=())] = False,
    json: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Write settings, keys, our self-description and the admin token of a new connector.

    The token is shown once; only its hash is kept. Nothing is overwritten.

    Parameters
    ----------
    name
        short name that others type, such as hospital
    id
        decentralized identifier, such as did:web:hospital.example
    role
        role in the data space, such as hospital or biopharma
    directory
        where to write; made if it is not there
    port
        of the protocol listener; data, management and ops take the next three
    host
        name under which peers reach us; default: the one in a did:web, in development 127.0.0.1
    development
        plain http on this machine only, for trying things out
    save_token
        also write the token to `admin-token` (mode 0600), where the command line finds it
    json
        print JSON
    """
    from connector.adapters import keys

    directory = directory.absolute()
    if not 1 <= port <= PORT_MAX:
        raise SettingsError(f"`--port` is {port}; give one from 1 to {PORT_MAX}: {len(LISTENERS)} in a row are needed")
    text = render({**_values(name, id, role, port, host, development)})
    settings = _checked(text, directory)
    token, digest = _fresh_token()
    files = {
        settings.management.token_hash_file: (f"{digest}\n", SECRET_MODE),
        directory / "connector.toml": (text, PUBLIC_MODE),
    }
    if save_token:
        files[directory / TOKEN_FILE] = (f"{token}\n", SECRET_MODE)
    path = settings.registry.directory / f"{name}.jsonld"
    _refuse_to_overwrite([*files, path, *settings.keys.directory.glob("*.key")])
    made: list[Path] = []
    try:
        for folder in (directory, settings.registry.directory, *settings.sources.roots):
            folder.mkdir(FOLDER_MODE, parents=True, exist_ok=True)
        kid = keys.generate(settings.keys.directory, time.time())
        made.append(settings.keys.directory / f"{kid}{keys.SUFFIX}")
        for file, (content, mode) in {path: (description(settings), PUBLIC_MODE), **files}.items():
            _write(file, content, mode)
            made.append(file)
    except OSError as error:
        for file in made:  # what is half there would be refused the next time
            file.unlink(missing_ok=True)
        raise SettingsError(f"`{error.filename}` cannot be written: {error.strerror}; choose another `--directory`") from None
    if json:
        show.document({"settings": str(directory / "connector.toml"), "description": str(path), "key": kid, "token": token})
        return
    _say(settings, directory, path, token, save_token, development)


def token(*, save_token: Annotated[bool, Parameter(negative=())] = False, common: Common | None = None) -> None:
    """Make another admin token, such as for one that was lost. The one before ends once the connector reads it.

    The token is shown once; only its hash is kept. Where the one before was saved in `admin-token`, this one takes its place.

    Parameters
    ----------
    save_token
        also write the token to `admin-token` (mode 0600), where the command line finds it
    """
    from connector.adapters import keys

    common = common or Common()
    hashed, saved = read_settings(common, look_at_files=False).management.token_hash_file, common.config.absolute().parent / TOKEN_FILE
    made, digest = _fresh_token()
    with keys.alone(hashed.parent):  # of two at once both would be saved, each in one of the files
        keys.replace_file(hashed, f"{digest}\n".encode())
        files = [hashed]
        try:
            if save_token or saved.exists():
                keys.replace_file(saved, f"{made}\n".encode())
                files.append(saved)
        finally:  # whatever becomes of the copy: soon no other token is taken than this one
            _show_token(made, files, saved, common)


def _show_token(made: str, files: list[Path], saved: Path, common: Common) -> None:
    if common.json:
        show.document({"token": made, "files": [str(path) for path in files]})
        return
    show.line(f"admin token, shown this once: {made}")
    if saved in files:
        show.line(f"it is also in {saved}; whoever can read that file commands this connector")
    show.note("next: send SIGHUP to the connector if it runs (`kill -HUP PID`), or start it again; until then it takes the one before")


def _fresh_token() -> tuple[str, str]:
    """A new admin token, and its SHA-256 in hexadecimal."""
    token = secrets.token_urlsafe(TOKEN_BYTES)
    return token, hashlib.sha256(token.encode()).hexdigest()


def render(values: Mapping[str, Any]) -> str:
    """The complete `connector.toml` with every field's documentation; `values` are those that differ from the defaults."""
    return "\n".join(_lines(values)) + "\n"


def _lines(values: Mapping[str, Any]) -> Iterator[str]:
    from connector.settings.fields import Settings, fields_of, is_section

    yield "# Settings of a Qiao connector. Paths are relative to this file. The environment overrides a field:"
    yield "# QIAO_<SECTION>_<FIELD>, such as QIAO_PROTOCOL_PORT. `connector check` finds every mistake."
    for section in fields_of(Settings):
        yield ""
        if not is_section(cls := section.type):
            yield '# Name -> file with the secret header value that an HTTP source needs, such as: warehouse = "warehouse.secret"'
            yield f"[{section.name}]"
            continue
        yield f"# {LISTENERS_DO.get(section.name) or (cls.__doc__ or '').strip()}"
        yield f"[{section.name}]"
        for spec in fields_of(cls):
            value = values.get(f"{section.name}.{spec.name}", getattr(section.default, spec.name, None))
            yield f"{spec.name} = {_toml(value)}  # {spec.says.doc}"


def _toml(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case tuple() | list():
            return f"[{', '.join(_toml(item) for item in value)}]"
        case None:
            return '""'
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def _values(name: str, id: str, role: str, port: int, host: str | None, development: bool) -> dict[str, Any]:
    values: dict[str, Any] = {"participant.name": name, "participant.id": id, "participant.role": role}
    values |= {f"{listener}.port": port + n for n, listener in enumerate(LISTENERS)}
    if development:
        values |= DEVELOPMENT
        if host is not None:
            values |= {f"{listener}.url": f"http://{host}:{values[f'{listener}.port']}" for listener in ("protocol", "data")}
        return values
    if host is None and id.startswith("did:web:"):
        host = id.removeprefix("did:web:").partition(":")[0].partition("%3A")[0]
    if not host:
        raise SettingsError("under which name do peers reach us? give `--host`, or `--development` to try things out on this machine")
    return values | {f"{listener}.url": f"https://{host}:{values[f'{listener}.port']}" for listener in ("protocol", "data")}


def _checked(text: str, directory: Path) -> Settings:
    from connector.settings import parse

    settings, findings = parse(tomllib.loads(text), {}, directory)
    if findings:
        raise SettingsError("these settings cannot work", tuple(str(finding) for finding in findings))
    return settings


def description(settings: Settings) -> str:
    """Our self-description, with the keys in their folder."""
    from connector.adapters import keys, registry

    own = settings.participant
    member = registry.participant(own.id, own.name, own.role, settings.protocol.url + DSP_PATH)
    public = keys.Keys(settings.keys.directory, own.id).public()
    return json.dumps(registry.own_description(member, settings.data.url, public), indent=2, ensure_ascii=False) + "\n"


def _refuse_to_overwrite(paths: list[Path]) -> None:
    if there := [str(path) for path in paths if path.exists() or path.is_symlink()]:
        raise SettingsError(
            "there is a connector already, and nothing was changed; choose another `--directory`",
            tuple(f"`{path}` exists" for path in there),
        )


def _write(path: Path, content: str, mode: int) -> None:
    """Write a new file that has its mode from its first byte on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    show.put(path, content.encode(), mode)


def _say(settings: Settings, directory: Path, path: Path, token: str, saved: bool, development: bool) -> None:
    show.line(f"{settings.participant.name} ({settings.participant.id}) is ready in {directory}")
    show.line()
    show.line(f"admin token, shown this once: {token}")
    if saved:
        show.line(f"it is also in {directory / TOKEN_FILE}; whoever can read that file commands this connector")
    show.line()
    show.line("next:")
    steps = [
        f"cd {directory}",
        *([] if saved else ["export QIAO_TOKEN=<the token>"]),
        f"give {path} to your peers, and put theirs into {settings.registry.directory}",
        *([] if development else [REACHED]),
        "connector check",
        "connector run",
    ]
    for number, step in enumerate(steps, 1):
        show.line(f"{number}. {step}")
