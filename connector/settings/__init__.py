"""Reads `connector.toml` and the environment into one frozen value, or one error that names every mistake.

The environment overrides the file: `QIAO_<SECTION>_<FIELD>`, lists separated by commas. Paths are relative to the file.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Set
from difflib import get_close_matches
from math import isfinite
from pathlib import Path
from typing import Any, get_origin

from msgspec import NODEFAULT

from connector.errors import SettingsError
from connector.settings.fields import Field, ListenerSettings, ManagementSettings, Settings, fields_of, is_section
from connector.settings.rules import CHOICES, Finding, contradictions, on_disk
from connector.values import replace

__all__ = ["Contents", "Finding", "ListenerSettings", "ManagementSettings", "Settings", "load", "parse"]

PREFIX = "QIAO_"
RESERVED = frozenset({"QIAO_CONFIG", "QIAO_TOKEN", "QIAO_CLIENT_CERTIFICATE"})  # the command line's own variables
# Kubernetes announces every service of the namespace like this; a service called `qiao` must not stop the connector.
SERVICE_LINK = re.compile(r"QIAO_(\w+_)?(SERVICE_HOST|SERVICE_PORT\w*|PORT_\d+_\w+)|QIAO_PORT")
SECTIONS: Mapping[str, Any] = {
    each.name: each.type for each in fields_of(Settings)
}  # section -> its class; `credentials` has the operator's own names
SHOWN_CHARACTERS = 60  # of a wrong value in its finding: enough to recognise it
Contents = Callable[[Settings, Set[str]], Iterable[str]]  # (settings, the fields with a mistake, whose files are left alone) -> mistakes
LISTENERS = ("protocol", "data", "management", "ops")


class _Wrong(Exception):
    """A value that its field cannot take: (problem, remedy)."""


def load(path: Path, environ: Mapping[str, str], *, look_at_files: bool = True, contents: Contents | None = None) -> Settings:
    """Read, parse and check the settings in `path`, with `environ` (as `os.environ`) over them.

    `look_at_files` is for who runs the connector; who only calls it need not be able to see them. `contents` is asked what is
    wrong inside the files once anything else is: whoever opens them says it where they are all that is wrong. Raises
    SettingsError with every mistake at once, those on the disk (missing keys, open file modes) included.
    """
    try:
        document = tomllib.loads(path.read_bytes().decode())
    except FileNotFoundError:
        raise SettingsError(f"there are no settings at `{path}`; run `connector init`, or name the file with `--config`") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"the settings at `{path}` cannot be read ({error}); a UTF-8 text file is needed") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"the settings at `{path}` are not TOML: {error}; mend that place") from None
    settings, findings = parse(document, environ, path.absolute().parent)
    if look_at_files:
        findings += _new(on_disk(settings), findings)
    if findings:
        inside = contents(settings, {finding.field for finding in findings}) if contents is not None else ()
        raise SettingsError(f"the settings at `{path}` cannot work", (*(str(finding) for finding in findings), *inside))
    return settings


def parse(document: Mapping[str, Any], environ: Mapping[str, str], directory: Path) -> tuple[Settings, tuple[Finding, ...]]:
    """Turn a TOML document and the environment into settings and all findings; a field with a finding has its default.

    Pure: relative paths are joined to `directory` and nothing on the disk is looked at.
    """
    findings = [Finding(name, "is not a section", _did_you_mean(name, SECTIONS)) for name in document if name not in SECTIONS]
    overrides = _overrides(environ, findings)
    values: dict[str, Any] = {}
    for section in fields_of(Settings):
        given = document.get(section.name, {})
        if not isinstance(given, Mapping):
            findings.append(Finding(section.name, f"is {_show(given)}", f"write a table: [{section.name}]"))
            given = {}
        read = _section if is_section(section.type) else _credentials
        values[section.name] = read(section, given, overrides.get(section.name, {}), directory, findings)
    for name in LISTENERS:
        values[name] = _with_url(values[name])
    settings = Settings(**values)
    return settings, (*findings, *_new(contradictions(settings), findings))


def _section(section: Field, given: Mapping[str, Any], overrides: Mapping[str, str], directory: Path, findings: list[Finding]) -> Any:
    name, cls = section.name, SECTIONS[section.name]
    known = {spec.name: spec for spec in fields_of(cls)}
    findings += [Finding(f"{name}.{key}", "is not a field", _did_you_mean(key, known)) for key in given if key not in known]
    values: dict[str, Any] = {}
    for key, spec in known.items():
        values[key] = getattr(section.default, key, "")
        try:
            if key in overrides:
                values[key] = _read(spec, _from_environment(spec, overrides[key]), f"{name}.{key}")
            elif key in given:
                values[key] = _read(spec, given[key], f"{name}.{key}")
            elif spec.default is NODEFAULT:
                raise _Wrong("is missing", f"give {spec.says.doc}")
        except _Wrong as wrong:
            findings.append(Finding(f"{name}.{key}", *wrong.args))
        values[key] = _absolute(values[key], directory)
    return cls(**values)


def _credentials(
    section: Field, given: Mapping[str, Any], overrides: Mapping[str, str], directory: Path, findings: list[Finding]
) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for name, value in {**given, **overrides}.items():
        if isinstance(value, str) and value and "\0" not in value:
            files[name] = directory / value
        else:
            findings.append(Finding(f"{section.name}.{name}", "is not a path", "write the path of the file that holds the secret"))
    return files


def _read(spec: Field, value: Any, where: str) -> Any:
    """Check a TOML value against its field's type, bounds and choices. Raises _Wrong."""
    kind, (_, low, high) = spec.type, spec.says
    if kind in (str, Path, Path | None):
        if not isinstance(value, str) or "\0" in value:
            raise _Wrong(f"is {_show(value)}", "write text in quotes")
        if where in CHOICES and value not in CHOICES[where]:
            raise _Wrong(f"is {_show(value)}", f"choose one of {', '.join(CHOICES[where])}")
        if kind is Path and not value:
            raise _Wrong("is empty", "write a path; a relative one starts at the settings file")
        return value if kind is str else Path(value) if value else None
    if kind is bool:
        if not isinstance(value, bool):
            raise _Wrong(f"is {_show(value)}", "write true or false")
        return value
    if kind is int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise _Wrong(f"is {_show(value)}", f"write a whole number {_bounds(low, high)}")
        return value
    if kind is float:
        fits = isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
        if not fits or not low <= value <= high:
            raise _Wrong(f"is {_show(value)}", f"write a number {_bounds(low, high)}")
        return float(value)
    if not isinstance(value, list):
        raise _Wrong(f"is {_show(value)}", "write a list in brackets")
    if kind == tuple[int, ...]:
        if not all(isinstance(item, int) and not isinstance(item, bool) and low <= item <= high for item in value):
            raise _Wrong(f"is {_show(value)}", f"write whole numbers {_bounds(low, high)}")
        return tuple(value)
    if not all(isinstance(item, str) and item for item in value):
        raise _Wrong(f"is {_show(value)}", "write a list of texts, none of them empty")
    return tuple(Path(item) for item in value) if kind == tuple[Path, ...] else tuple(value)


def _from_environment(spec: Field, text: str) -> Any:
    """The TOML value that an environment variable means; left as text where it does not fit, so that `_read` refuses it."""
    kind = spec.type
    if get_origin(kind) is tuple:
        items: list[Any] = [item.strip() for item in text.split(",")] if text.strip() else []
        return [int(item) if kind == tuple[int, ...] and item.isdecimal() else item for item in items]
    if kind is bool:
        return {"true": True, "1": True, "false": False, "0": False}.get(text.strip().lower(), text)
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            return text
    return text


def _overrides(environ: Mapping[str, str], findings: list[Finding]) -> dict[str, dict[str, str]]:
    """Environment variables as section -> field -> text; a variable of ours that names no field is a finding."""
    names = {
        f"{PREFIX}{section}_{spec.name}".upper(): (section, spec.name)
        for section, cls in SECTIONS.items()
        if is_section(cls)
        for spec in fields_of(cls)
    }
    found: dict[str, dict[str, str]] = {}
    for variable, text in environ.items():
        if not variable.startswith(PREFIX) or variable in RESERVED:
            continue
        if target := names.get(variable):
            found.setdefault(target[0], {})[target[1]] = text
        elif variable.startswith(f"{PREFIX}CREDENTIALS_"):
            found.setdefault("credentials", {})[variable.removeprefix(f"{PREFIX}CREDENTIALS_").lower()] = text
        elif not SERVICE_LINK.fullmatch(variable):
            findings.append(Finding(variable, "is not a setting", _did_you_mean(variable, names)))
    return found


def _with_url(listener: ListenerSettings) -> ListenerSettings:
    """The listener with its address filled in from host and port where that is possible."""
    if listener.url or not listener.port:
        return replace(listener, url=listener.url.rstrip("/"))
    host = f"[{listener.host}]" if ":" in listener.host else listener.host
    return replace(listener, url=f"{'https' if listener.tls else 'http'}://{host}:{listener.port}")


def _absolute(value: Any, directory: Path) -> Any:
    if isinstance(value, tuple):
        return tuple(_absolute(item, directory) for item in value)
    return directory / value if isinstance(value, Path) else value


def _new(more: Iterable[Finding], known: Iterable[Finding]) -> tuple[Finding, ...]:
    """The findings of `more` whose field has none yet: the consequence of a mistake is not a second mistake."""
    spoken = {finding.field for finding in known}
    return tuple(finding for finding in more if finding.field not in spoken)


def _did_you_mean(name: str, known: Mapping[str, Any]) -> str:
    close = get_close_matches(name, known, n=1)
    return f"did you mean `{close[0]}`?" if close else f"known are {', '.join(sorted(known)[:20])}"


def _bounds(low: float, high: float) -> str:
    return f"from {low:.15g} to {high:.15g}" if isfinite(high) else f"of at least {low:.15g}"


def _show(value: Any) -> str:
    text = f"`{value}`" if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 3]}..."
