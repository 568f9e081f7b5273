"""What no single setting can know: settings that contradict each other, and files that are not there."""

from __future__ import annotations

import ipaddress
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from urllib.parse import urlsplit

from connector.settings.fields import ListenerSettings, Settings

# Field -> the values it takes, where there is a closed choice.
CHOICES: Mapping[str, tuple[str, ...]] = {
    "store.kind": ("sqlite", "memory"),
    "receipts.after": ("fsync", "write"),
    "telemetry.log_level": ("debug", "info", "warning", "error"),
    "telemetry.log_format": ("json", "console"),
    **{f"{name}.client_auth": ("require", "request") for name in ("protocol", "data", "management", "ops")},
}
DID = re.compile(r"did:[a-z0-9]+:(?:[A-Za-z0-9._-]|%[0-9A-Fa-f]{2}|:)*[A-Za-z0-9._-]")  # W3C DID Core 1.0, 3.1, without path and query
NAME = re.compile(r"\w[\w.-]{0,63}")  # a file name and an argument of the command line; never starts with a dot or a dash
CHUNK_BYTES = 262_144  # of data in a leaf of a content log: a window must not end within one
ROLE_CHARACTERS = 64  # it stands in every catalog and token
WILDCARDS = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared with, not listened on
GROUP_AND_OTHERS = stat.S_IRWXG | stat.S_IRWXO
NO_KEY = "restore it from a backup, or make a new key with `connector keys new`"
NO_REGISTRY = "make it: the self-descriptions of the participants belong into it"
NO_TOKEN = "run `connector token`, which makes another one"  # noqa: S105 - what to do


@dataclass(frozen=True, slots=True)
class Finding:
    """One mistake: the field as `section.field`, what is wrong with it, and what to do."""

    field: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"`{self.field}` {self.problem}; {self.remedy}"


def contradictions(settings: Settings) -> Iterator[Finding]:
    """Everything that can be told from the settings alone. Pure."""
    yield from _participant(settings)
    for name, listener in _listeners(settings):
        yield from _listener(name, listener, settings.egress.http)
    yield from _ports(settings)
    yield from _pair("egress", settings.egress.certificate, settings.egress.key)
    if not is_loopback(settings.management.host) and not settings.management.tls:
        yield Finding(
            "management.host",
            f"is `{settings.management.host}`, where others could read the admin token",
            "listen on 127.0.0.1, or give management.certificate and management.key",
        )
    for network in settings.egress.allow:
        try:
            ipaddress.ip_network(network)
        except ValueError:
            yield Finding("egress.allow", f"has `{network}`, which is not a network", "write it as 10.1.0.0/16, host bits zero")
    if settings.delivery.retry_seconds_max < settings.delivery.first_retry_seconds:
        yield Finding("delivery.retry_seconds_max", "is below delivery.first_retry_seconds", "make it the longer one")
    if settings.metering.window_bytes % CHUNK_BYTES:
        whole = settings.metering.window_bytes // CHUNK_BYTES * CHUNK_BYTES
        yield Finding("metering.window_bytes", "is not a multiple of 262144, the bytes that are proven together", f"write {whole}")
    window, least = settings.metering.window_bytes, live_room(settings.metering.window_bytes, settings.metering.credit_windows)
    if settings.metering.spool_bytes < least:
        yield Finding(
            "metering.spool_bytes",
            f"is {settings.metering.spool_bytes}, less than live data need to flow: a receipt is due after {least - window} bytes, and a"
            f" window of {window} is on its way meanwhile, so their source would wait for a second after each spoolful",
            f"write {least} or more, or make metering.window_bytes smaller",
        )
    if settings.telemetry.otlp_endpoint and (problem := _url_problem(settings.telemetry.otlp_endpoint)):
        yield Finding("telemetry.otlp_endpoint", problem, "write it as http://127.0.0.1:4318")


def live_room(window_bytes: int, credit_windows: int) -> int:
    """The bytes of live data that are kept while their consumer signs as late as it may: half of the credit, of one to two windows, and the
    window that flows while its receipt is on its way."""
    return max(window_bytes, min(credit_windows * window_bytes // 2, 2 * window_bytes)) + window_bytes


def on_disk(settings: Settings) -> Iterator[Finding]:
    """Everything that can be told by looking at the files that the settings name. Reads no secret's content."""
    yield from _keys(settings.keys.directory)
    if not settings.registry.directory.is_dir():
        yield Finding("registry.directory", f"is `{settings.registry.directory}`, which is not a directory", NO_REGISTRY)
    if not settings.management.token_hash_file.is_file():
        yield Finding("management.token_hash_file", f"is `{settings.management.token_hash_file}`, which is not a file", NO_TOKEN)
    for name, listener in _listeners(settings):
        named = {field: getattr(listener, field) for field in ("certificate", "key", "client_ca", "client_crl")}
        yield from _pem(name, **named)
    yield from _pem("egress", **{field: getattr(settings.egress, field) for field in ("ca_file", "certificate", "key", "crl_file")})
    for field, roots in (("sources.roots", settings.sources.roots), ("pulls.roots", settings.pulls.roots)):
        for root in roots:
            if not root.is_dir():
                yield Finding(field, f"has `{root}`, which is not a directory", f"make it, or take it out of {field}")
    for name, path in settings.credentials.items():
        if not path.is_file():
            yield Finding(
                f"credentials.{name}", f"is `{path}`, which is not a file", "write the secret header value into a file of mode 0600"
            )
        elif _open_to_others(path):
            yield Finding(f"credentials.{name}", f"is `{path}`, which others can read", f"run `chmod 600 {path}`")
    spans = settings.telemetry.spans_file
    if spans is not None and (spans.is_dir() or not os.access(spans if spans.exists() else spans.parent, os.W_OK)):
        yield Finding("telemetry.spans_file", f"is `{spans}`, where no file can be written", "name a file in a directory of ours")
    if (logs := settings.metering.directory) is not None:
        there = next(path for path in (logs, *logs.parents) if path.exists())
        if not there.is_dir() or not os.access(there, os.W_OK):
            yield Finding("metering.directory", f"is `{logs}`, where nothing can be kept", "name a directory of ours")
    if settings.store.kind == "sqlite":
        directory = settings.store.path.parent
        if settings.store.path.is_dir() or not directory.is_dir() or not os.access(directory, os.W_OK):
            yield Finding("store.path", f"is `{settings.store.path}`, where no file can be written", "name a file in a directory of ours")


def _pem(section: str, **files: Path | None) -> Iterator[Finding]:
    for field, path in files.items():
        if path is not None and not path.is_file():
            yield Finding(f"{section}.{field}", f"is `{path}`, which is not a file", "give the path of a PEM file")


def is_loopback(host: str) -> bool:
    """Whether this host name or address can only be reached from this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _participant(settings: Settings) -> Iterator[Finding]:
    own = settings.participant
    if not DID.fullmatch(own.id):
        yield Finding("participant.id", f"is `{own.id}`, not a DID", "write it as did:web:hospital.example")
    if not NAME.fullmatch(own.name):
        yield Finding(
            "participant.name", f"is `{own.name}`", "use 1 to 64 letters, digits, dots, dashes or underscores, a letter or digit first"
        )
    if not own.role.strip() or len(own.role) > ROLE_CHARACTERS or not own.role.isprintable():
        yield Finding("participant.role", f"is `{own.role[:ROLE_CHARACTERS]}`", f"use 1 to {ROLE_CHARACTERS} printable characters")


def _listeners(settings: Settings) -> tuple[tuple[str, ListenerSettings], ...]:
    return (
        ("protocol", settings.protocol),
        ("data", settings.data),
        ("management", settings.management),
        ("ops", settings.ops),
    )


def _listener(name: str, listener: ListenerSettings, plain_http: bool) -> Iterator[Finding]:
    if not listener.host or re.search(r"[\s/]", listener.host):
        yield Finding(
            f"{name}.host", f"is `{listener.host}`, not an address", "write an address such as 127.0.0.1, without scheme and port"
        )
        return
    yield from _pair(name, listener.certificate, listener.key)
    if listener.client_ca is not None and listener.certificate is None:
        yield Finding(f"{name}.client_ca", "is given without TLS, within which clients show certificates", f"give {name}.certificate")
    if listener.client_crl is not None and listener.client_ca is None:
        yield Finding(f"{name}.client_crl", "is given without the authorities whose certificates it revokes", f"give {name}.client_ca")
    if not listener.url:
        return
    if problem := _url_problem(listener.url):
        yield Finding(f"{name}.url", problem, "write scheme, host and port, such as https://connector.hospital.example")
        return
    address = urlsplit(listener.url)
    if address.hostname in WILDCARDS and name != "ops":
        yield Finding(f"{name}.url", f"is `{listener.url}`, which nobody can dial", "give the address that others use")
    elif address.scheme == "http" and listener.tls:
        yield Finding(f"{name}.url", f"is `{listener.url}` though the listener speaks TLS", "write https")
    elif address.scheme == "http" and name in ("protocol", "data"):
        if not is_loopback(address.hostname or ""):
            yield Finding(f"{name}.url", f"is `{listener.url}`, where others can read along", "use https; plain http is for loopback only")
        elif not plain_http:
            yield Finding(
                f"{name}.url",
                f"is `{listener.url}`, without TLS",
                "use https, or for development on one machine set egress.http = true",
            )


def _pair(section: str, certificate: Path | None, key: Path | None) -> Iterator[Finding]:
    if certificate is not None and key is None:
        yield Finding(f"{section}.certificate", "is given without its private key", f"give {section}.key")
    if key is not None and certificate is None:
        yield Finding(f"{section}.key", "is given without a certificate", f"give {section}.certificate")


def _ports(settings: Settings) -> Iterator[Finding]:
    for (first, one), (second, other) in combinations(_listeners(settings), 2):
        same_host = one.host == other.host or one.host in WILDCARDS or other.host in WILDCARDS
        if same_host and one.port == other.port != 0:
            yield Finding(f"{second}.port", f"is {other.port}, which {first}.port has already", "give each listener a port of its own")


def _url_problem(url: str) -> str | None:
    # This is printed, and whatever else is wrong with it: a secret may stand before an `@`.
    it_is = f"is `{url}`," if "@" not in url else "is not shown, as it has an `@` with what may be a secret before it; it is"
    try:
        address = urlsplit(url)
        port_is_valid = address.port is None or address.port > 0
    except ValueError:
        return f"{it_is} not an address"
    if address.username is not None:
        return "has a user before its host, which is not shown here; it may have no more than scheme, host, port and path"
    if address.scheme not in ("http", "https"):
        return f"{it_is} without http:// or https:// at its start"
    if not address.hostname or not port_is_valid or re.search(r"\s", url):
        return f"{it_is} not an address"
    if "?" in url or "#" in url:
        return f"{it_is} with more than scheme, host, port and path"
    return None


def _keys(directory: Path) -> Iterator[Finding]:
    if not directory.is_dir():
        yield Finding("keys.directory", f"is `{directory}`, which is not a directory", NO_KEY)
        return
    try:
        files = sorted(path for path in directory.iterdir() if path.suffix == ".key")
    except OSError as error:
        yield Finding("keys.directory", f"is `{directory}`, which cannot be read ({error.strerror})", "it must be ours to read")
        return
    if not files:
        yield Finding("keys.directory", f"is `{directory}`, which has no file <kid>.key", NO_KEY)
    for path in files:
        if _open_to_others(path):
            yield Finding("keys.directory", f"has `{path}`, which others can read", f"run `chmod 600 {path}`")


def _open_to_others(path: Path) -> bool:
    return bool(path.stat().st_mode & GROUP_AND_OTHERS)
