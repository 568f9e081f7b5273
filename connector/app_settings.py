"""What each component takes from the settings, made from them at the start and again at a reload; and what can be looked at with nothing
running: the files that settings name (`mistakes`), and policies before anybody publishes them (`published`, `examined`, `library`)."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Set
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

from connector import telemetry
from connector.adapters import egress
from connector.adapters.keys import Keys
from connector.adapters.registry import Registry
from connector.adapters.sqlite import SqliteStore
from connector.adapters.sqlite_schema import claimed
from connector.adapters_stores.anchor import FileAnchor, MemoryAnchor
from connector.adapters_stores.used_file import UsedFile
from connector.adapters_streams.dialled import client_tls
from connector.api.listener import Door, other_names, tls_context
from connector.control.catalog import base_of
from connector.control.compose import Times
from connector.control.watch import Keep
from connector.dataplane.logs import Logs
from connector.dsp import dcat
from connector.dsp.messages import CONTEXT, DSP_CONTEXT
from connector.dsp.schemas import Schemas
from connector.errors import PolicyError, SettingsError
from connector.ledger.witnesses import LEDGER_PATH
from connector.odrl import Finding, Options, lint, load
from connector.odrl_forms.drafts import Draft, Examined, Form, chosen, offer_of, read_draft
from connector.odrl_forms.locale_forms import Language
from connector.odrl_forms.plain import plain
from connector.odrl_forms.template_files import Template
from connector.ports import Identity, Store
from connector.ports.ledger import Anchor
from connector.settings import ListenerSettings, Settings
from connector.settings.fields import LimitsSettings, fields_of
from connector.values import Value
from connector.vocabulary import read_profiles, read_template_library, read_vocabulary

DAY, HOUR = 86_400.0, 3_600.0
LISTENERS = ("protocol", "data", "management", "ops")
DIALLED = ("protocol", "data", "management")  # by clients that believe certificates; probes ask at the other one
EGRESS_FILES = ("ca_file", "certificate", "key", "crl_file")
DOOR_FILES = ("certificate", "key", "client_ca", "client_crl")
ASSET, SERVICE = "urn:qiao:any-dataset", "urn:qiao:any-service"  # an offer is published within a dataset
WITHIN = "/hasPolicy/0"  # where the schema of a dataset sees it


def opened(settings: Settings) -> tuple[Keys, Registry, bytes]:
    """Our keys, the participants, and the hash of the admin token; every certificate is tried too. Raises one SettingsError
    with the mistakes of all these files."""
    found, reasons = _tried(settings, frozenset())
    if reasons:
        raise SettingsError("files that the settings name cannot be used", tuple(reasons))
    keys, registry, hashed = found[:3]
    return keys, registry, hashed


def mistakes(settings: Settings, spoken: Set[str], now: float) -> tuple[str, ...]:
    """What is wrong inside the files that the settings name, but for those of the fields `spoken`, whose mistakes are known."""
    found, reasons = _tried(settings, spoken)
    for keys in (each for each in found if isinstance(each, Keys)):
        try:
            keys.active(now)
        except SettingsError as error:
            reasons += error.reasons
    return tuple(reasons)


def _tried(settings: Settings, spoken: Set[str]) -> tuple[list[Any], list[str]]:
    """What the files hold, and what is wrong with them; those of the fields `spoken` are not opened."""
    steps: tuple[tuple[set[str], Callable[[], Any]], ...] = (
        ({"keys.directory"}, lambda: Keys(settings.keys.directory, settings.participant.id)),
        ({"registry.directory"}, lambda: Registry(settings.registry.directory)),
        ({"management.token_hash_file"}, lambda: token_hash(settings)),
        *(({f"{name}.{field}" for field in DOOR_FILES}, partial(check_tls, settings, name)) for name in LISTENERS),
        # Where none is named there is nothing to try but the system's authorities, which take a sixth of a start to load.
        ({f"egress.{field}" for field in EGRESS_FILES}, lambda: client_tls(*ours) if any(ours := client_files(settings)) else None),
    )
    found: list[Any] = []
    reasons: list[str] = []
    for fields, step in steps:
        if spoken.isdisjoint(fields):
            try:
                found.append(step())
            except SettingsError as error:
                reasons += error.reasons
    return found, reasons


def check_tls(settings: Settings, name: str) -> None:
    """Load the certificate of listener `name`, as a start would. Raises SettingsError."""
    tls_context(door(name, getattr(settings, name), settings.limits))


def misnamed(settings: Settings) -> tuple[str, ...]:
    """Which of our addresses clients would not believe us at, as the certificate there has other names. Their files can be used. It is no
    mistake where a proxy that others dial shows a certificate of its own."""
    found = []
    for name in DIALLED:
        at: ListenerSettings = getattr(settings, name)
        host = urlsplit(at.url).hostname
        if at.certificate is None or not host:
            continue
        if (names := other_names(door(name, at, settings.limits), host)) is not None:
            said = ", ".join(f"`{each}`" for each in names) or "no name at all"
            found.append(
                f"`{name}.url` is `{at.url}`, and `{name}.certificate` `{at.certificate}` is not for `{host}` but for {said}, so that who"
                f" dials that address does not believe us; give a certificate whose subject alternative names have `{host}`, or write an"
                " address that it is for (all is well if a proxy before us shows another certificate)"
            )
    return tuple(found)


def client_files(settings: Settings) -> tuple[Path | None, Path | None, Path | None, Path | None]:
    """Authorities that may vouch for peers, what we show to those that ask, and who is revoked: the arguments of `client_tls`."""
    egress = settings.egress
    return egress.ca_file, egress.certificate, egress.key, egress.crl_file


def door(name: str, at: ListenerSettings, limits: LimitsSettings) -> Door:
    idle_seconds = min(limits.keepalive_seconds, limits.header_seconds)
    counts = limits.connections, limits.connections_per_address
    bounds = idle_seconds, *counts, limits.management_bytes, limits.drain_seconds
    own = name, at.host, at.port, at.certificate, at.key
    return Door(*own, *bounds, client_ca=at.client_ca, client_auth=at.client_auth, client_crl=at.client_crl)


def store_of(settings: Settings, participant: str, stack: AsyncExitStack) -> Store:
    """The store, whose file is ours alone until `stack` ends. Raises StoreError."""
    if settings.store.kind == "memory":
        from connector.adapters.memory import MemoryStore

        return MemoryStore()
    stack.enter_context(claimed(settings.store.path))
    return SqliteStore(settings.store.path, participant)


def anchor_of(settings: Settings) -> Anchor:
    """What remembers the last checkpoint beside the store."""
    if settings.store.kind == "memory":
        return MemoryAnchor()
    path = settings.store.path.resolve()
    return FileAnchor(path.with_name(f"{path.name}.ledger"))


def kept_ids(settings: Settings, stack: AsyncExitStack) -> UsedFile | None:
    """What remembers beside the store which tokens and signatures were used; a store in memory has none. Raises StoreError."""
    if settings.store.kind == "memory":
        return None
    path = settings.store.path.resolve()
    used = UsedFile(path.with_name(f"{path.name}.used"))
    stack.callback(used.close)
    return used


def own_places(settings: Settings) -> tuple[Path, ...]:
    """Where nothing may be put that a peer sends: whatever directory or file the settings name for ourselves."""
    sections: list[Value] = [
        getattr(settings, each.name) for each in fields_of(Settings) if each.name not in ("sources", "pulls", "credentials")
    ]
    named = [getattr(section, each.name) for section in sections for each in fields_of(type(section))]
    logs = settings.store.path.with_name("content-logs")
    return (logs, *(each for each in (*named, *settings.credentials.values()) if isinstance(each, Path)))


def content_logs(settings: Settings, stack: AsyncExitStack) -> Logs:
    """The content logs of what is published; with a store in memory they are gone with `stack`. Raises SettingsError."""
    if settings.metering.directory is None and settings.store.kind == "memory":
        return Logs(Path(stack.enter_context(TemporaryDirectory(prefix="content-logs-"))))
    return Logs(settings.metering.directory or settings.store.path.resolve().with_name("content-logs"))


def log_of(settings: Settings) -> str:
    """The name of our log, by where it is served: host and path, without a scheme (C2SP tlog-checkpoint, origin)."""
    where = urlsplit(settings.protocol.url)
    return f"{where.netloc}{where.path.rstrip('/')}{LEDGER_PATH}"


def credential(settings: Settings, name: str) -> str | None:
    path = settings.credentials.get(name)
    try:
        return path.read_text().strip() if path else None
    except (OSError, ValueError) as e:
        telemetry.log.error("credential cannot be read", name=name, error=str(e))
        return None


def token_hash(settings: Settings) -> bytes:
    """The SHA-256 of the admin token. Raises SettingsError."""
    file = settings.management.token_hash_file
    try:
        hashed = bytes.fromhex(file.read_text().strip())
    except OSError as error:
        raise SettingsError(
            f"`management.token_hash_file` `{file}` cannot be read: {error.strerror}; the file must be ours to read"
        ) from None
    except ValueError:
        hashed = b""
    if len(hashed) != hashlib.sha256().digest_size:
        raise SettingsError(
            f"`management.token_hash_file` `{file}` is no SHA-256 in hexadecimal; run `connector token`, which makes another token"
        )
    return hashed


def exporters(settings: Settings, stack: AsyncExitStack) -> tuple[Any, ...]:
    """Where kept spans go; a file ends with `stack`. Raises SettingsError if it cannot be written."""
    exporters: list[Any] = []
    if settings.telemetry.otlp_endpoint:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        exporters.append(OTLPSpanExporter(endpoint=f"{settings.telemetry.otlp_endpoint.rstrip('/')}/v1/traces"))
    if settings.telemetry.spans_file is not None:
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter

        try:  # it tells with whom we deal, as the database does: nobody else reads it
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            out = stack.enter_context(os.fdopen(os.open(settings.telemetry.spans_file, flags, 0o600), "a", encoding="utf-8"))
        except OSError as e:
            remedy = "name a file in a directory of ours"
            raise SettingsError(
                f"`telemetry.spans_file` `{settings.telemetry.spans_file}` cannot be written: {e.strerror}; {remedy}"
            ) from e
        exporters.append(ConsoleSpanExporter(out=out, formatter=lambda span: span.to_json(indent=None) + "\n"))
    return tuple(exporters)


def guard(settings: Settings) -> egress.Guard:
    return egress.guard(settings.egress.allow, settings.egress.http, settings.egress.ports)


def times(settings: Settings) -> Times:
    delivery = settings.delivery
    return Times(delivery.deadline_seconds, delivery.step_deadline_seconds, delivery.approval_deadline_seconds)


def keep(settings: Settings) -> Keep:
    retention = settings.retention
    return Keep(retention.inbox_days * DAY, retention.processes_days * DAY, retention.keys_hours * HOUR, retention.parts_days * DAY)


def nested(settings: Settings, identity: Identity) -> tuple[Mapping[str, Any], ...]:
    """Stubs of the catalogs that ours points to. A participant that the registry does not know is left out, and said so."""
    found = {name: identity.find(name) for name in settings.catalog.nested}
    for name in (name for name, member in found.items() if member is None):
        telemetry.log.warning("nested catalog left out", participant=name, reason="the registry does not know it")
    return tuple(
        dcat.nested_catalog(f"{each.id}#catalog", each.name, base_of(each), f"{each.id}#connector") for each in found.values() if each
    )


@cache
def library() -> Mapping[str, Template]:
    """The templates of this installation, read once. Raises SettingsError, PolicyError if they cannot be."""
    return read_template_library()


def published(content: bytes | list[Any], form: Form) -> tuple[dict[str, Any], Mapping[str, Any] | None]:
    """The offer to publish of the bytes of a policy, or of a choice of templates, and what to keep beside it (None but for templates).
    Raises PolicyError, and SettingsError if the profiles or templates of this installation cannot be read."""
    options = Options(profiles=read_profiles())
    draft = chosen(content, library) if isinstance(content, list) else read_draft(content, form, library, options=options)
    return offer_of(draft, options=options), draft.template


def examined(content: bytes | list[Any], form: Form, language: Language, now: float) -> Examined:
    """Look at the bytes of a policy in one of its forms, or at a choice of templates. `now` (POSIX seconds) tells what is over already.

    Never raises for what they say. Raises SettingsError if the profiles or templates of this installation cannot be read.
    """
    from connector.odrl_forms.validate import validate

    options, at = Options(profiles=read_profiles()), datetime.fromtimestamp(now, UTC)
    try:
        draft = chosen(content, library) if isinstance(content, list) else read_draft(content, form, library, options=options)
        document = draft.document
        if draft.format == "turtle":
            found = lint(document, "turtle", options=options, now=at)
        else:
            found = validate(document, schema_findings=_schema(document), options=options, now=at)
        seen = Examined(tuple(found), None)
        read = partial(load, document, draft.format, options=options)
        return seen if seen.refused else Examined(seen.findings, plain(read(), language), _offer(draft, options), draft.template)
    except PolicyError as error:
        return Examined(tuple(error.findings), None)


def in_chinese(findings: Iterable[Finding]) -> dict[str, str]:
    """The message and the remedy of each finding -> what its code means, in Chinese."""
    from connector.odrl_chinese.decisions import CODES

    return {f"{finding.message}; {finding.fix}": CODES[finding.code] for finding in findings}


def held_by(document: Mapping[str, Any]) -> dict[str, str]:
    """Who holds each condition of a policy, by its path: verified, measured, declared, contract only, or not checked."""
    try:
        policy = load(document, options=Options(profiles=read_profiles()), strict=False)
    except PolicyError:
        return {}
    return {one.path: one.held.replace("-", " ") for one in plain(policy).conditions}


def _offer(draft: Draft, options: Options) -> Mapping[str, Any] | None:
    try:
        return offer_of(draft, options=options)
    except PolicyError:
        return None  # a sound policy that is no offer of the protocol


def _schema(document: object) -> list[Finding]:
    """What the schema of the protocol says of it as an offer, for documents in the form of the protocol."""
    from connector.odrl_forms.validate import from_schema

    if not isinstance(document, Mapping) or "@graph" in document or document.get("@context", CONTEXT) not in (CONTEXT, DSP_CONTEXT):
        return []
    policy: Mapping[str, Any] = document
    offer = dcat.dataset_document(ASSET, ASSET, [(str(policy.get("@id", ASSET)), policy)], SERVICE, media_type="text/plain")
    faults = _schemas().faults("Dataset", {"@context": CONTEXT} | offer)
    return from_schema((pointer.removeprefix(WITHIN), sentence.replace(WITHIN, "")) for pointer, sentence in faults)


@cache
def _schemas() -> Schemas:
    return Schemas(read_vocabulary().schemas)
