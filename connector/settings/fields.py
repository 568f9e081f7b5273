"""The settings as a shape: one frozen class for each section of `connector.toml`, with defaults, bounds and documentation.

A field's `doc` is its documentation; `connector init` writes it above the field. Times are in the unit of the name's end.
"""

# ruff: noqa: RUF009 - `_f` is `dataclasses.field` with its documentation; it makes no shared value

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field
from pathlib import Path
from typing import Any


def _f(doc: str, default: Any = MISSING, low: float | None = None, high: float | None = None) -> Any:
    """A field with its documentation and its bounds (inclusive, in the field's unit)."""
    return field(default=default, metadata={"doc": doc, "low": low, "high": high})


@dataclass(frozen=True, slots=True, kw_only=True)
class ParticipantSettings:
    """Who we are."""

    id: str = _f("our decentralized identifier, for example did:web:hospital.example")
    name: str = _f("the short name that others type; letters, digits, dots, dashes and underscores")
    role: str = _f("our role in the data space, for example hospital, biopharma, registry")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysSettings:
    """Our own signing keys."""

    directory: Path = _f("one file <kid>.key for each key, readable by the owner only; the newest one signs", Path("keys"))


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrySettings:
    """The participants of the data space."""

    directory: Path = _f("one JSON-LD self-description for each participant, ours included", Path("participants"))


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerSettings:
    """One listening address."""

    host: str = _f("the address to listen on", "127.0.0.1")
    port: int = _f("the port to listen on; 0 takes any free one", 0, 0, 65535)
    url: str = _f("the address that others use, without a slash at its end; empty: made of host and port", "")
    certificate: Path | None = _f("TLS certificate chain, PEM; empty: no TLS here", None)
    key: Path | None = _f("private key of the certificate, PEM", None)
    client_ca: Path | None = _f("authorities for certificates of clients, PEM; they are asked for one beside their token; empty: not", None)
    client_auth: str = _f("require: every client shows a certificate; request: those that have one", "require")
    client_crl: Path | None = _f(
        "lists of revoked certificates, PEM: one of each authority in client_ca, and of those between; empty: none is revoked", None
    )

    @property
    def tls(self) -> bool:
        """Whether this listener speaks TLS itself."""
        return self.certificate is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagementSettings:
    """The listener of the operator's API. Same as the others, and who may call it."""

    host: str = _f("the address to listen on; anything but loopback needs TLS", "127.0.0.1")
    port: int = _f("the port to listen on; 0 takes any free one", 8082, 0, 65535)
    url: str = _f("the address that the command line uses; empty: made of host and port", "")
    certificate: Path | None = _f("TLS certificate chain, PEM; empty: no TLS here", None)
    key: Path | None = _f("private key of the certificate, PEM", None)
    client_ca: Path | None = _f("authorities for certificates of clients, PEM; they are asked for one beside their token; empty: not", None)
    client_auth: str = _f("require: every client shows a certificate; request: those that have one", "require")
    client_crl: Path | None = _f(
        "lists of revoked certificates, PEM: one of each authority in client_ca, and of those between; empty: none is revoked", None
    )
    token_hash_file: Path = _f("SHA-256 of the admin token, in hexadecimal", Path("admin-token.sha256"))

    @property
    def tls(self) -> bool:
        """Whether this listener speaks TLS itself."""
        return self.certificate is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSettings:
    """Where state is kept."""

    kind: str = _f("sqlite; memory forgets everything at the end and is for tests", "sqlite")
    path: Path = _f("the database file", Path("connector.db"))
    free_percent: float = _f("with less free of a disk that we write to, no new transfer is served; 0: whatever is free", 5.0, 0, 50)


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressSettings:
    """Whom this connector may dial."""

    allow: tuple[str, ...] = _f("networks that may be dialled although they are not public, for example 10.1.0.0/16", ())
    http: bool = _f("allow http without TLS; for development on one machine only", False)
    ports: tuple[int, ...] = _f("ports that may be dialled; an empty list allows any", (443, 8443), 1, 65535)
    ca_file: Path | None = _f("certificate authorities to trust beside the system's, PEM; empty: the system's only", None)
    certificate: Path | None = _f("certificate chain that we show to peers and sources that ask for one, PEM; empty: none", None)
    key: Path | None = _f("private key of that certificate, PEM", None)
    crl_file: Path | None = _f(
        "lists of revoked certificates, PEM: one of every authority of every chain that we are shown, the system's and the roots included;"
        " a server whose chain has an authority without a list is not believed; empty: none is revoked",
        None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SourcesSettings:
    """What may be published."""

    roots: tuple[Path, ...] = _f("published files must lie below one of these directories", (Path("data"),))


@dataclass(frozen=True, slots=True, kw_only=True)
class PullsSettings:
    """Where downloads may go."""

    roots: tuple[Path, ...] = _f("downloads must lie below one of these directories", (Path("."),))


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptsSettings:
    """How we sign for what we fetch."""

    after: str = _f("what is done with data before a receipt: fsync, outlives a loss of power; write, outlives the process", "fsync")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliverySettings:
    """How long we try, and how long we wait for others."""

    deadline_seconds: float = _f("after this time without success a message becomes a dead letter", 86400.0, 1)
    first_retry_seconds: float = _f("pause before the second attempt; each further one doubles, with jitter", 0.05, 0.001)
    retry_seconds_max: float = _f("the longest pause between two attempts", 300.0, 0.001)
    doubt_seconds: float = _f(
        "a refusal that may come from a proxy (401, 403, 404) is believed when it was repeated for this time", 30.0, 0
    )
    step_deadline_seconds: float = _f(
        "a peer has this time for a step that nobody has to decide on; then the process is terminated", 3600.0, 0.1
    )
    approval_deadline_seconds: float = _f(
        "an operator has this time to decide, ours and the peer's, or to replay a dead letter", 604800.0, 0.1
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class EdrSettings:
    """Access tokens of the data listener."""

    token_seconds: float = _f("life of an access token; consumers renew ahead of its end", 300.0, 1, 86400)
    quiet_seconds: float = _f("a transfer whose bytes were all fetched is completed after this quiet time", 60.0, 0.01)


@dataclass(frozen=True, slots=True, kw_only=True)
class MeteringSettings:
    """How what we serve is proven and counted."""

    directory: Path | None = _f("hashes of what is published, one file for each; empty: `content-logs` beside the database", None)
    window_bytes: int = _f("a consumer signs for so many at least at a time; a multiple of 262144", 16_777_216, 262_144, 1_073_741_824)
    credit_windows: int = _f("so many windows are sent beyond the last receipt, and no more; they are what can be in dispute", 8, 1, 64)
    spool_bytes: int = _f("of each live transfer are kept until they are acknowledged; then its source waits", 100_663_296, 33_554_432)
    untaken_seconds: float = _f(
        "a live transfer whose source has ended waits so long for a consumer that takes no more of it; then it ends, and the rest is gone",
        604800.0,
        0.1,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerSettings:
    """How others can tell that our ledger only grows."""

    witness: bool = _f("exchange checkpoints with counterparties: they cosign ours, and we theirs; without, nobody vouches for us", True)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionSettings:
    """How long finished things are kept."""

    inbox_days: float = _f("messages of peers, for the answer to a repeat", 30.0, 1)
    processes_days: float = _f("negotiations, transfers and pulls, after their end, and the dead letters of these", 365.0, 1)
    keys_hours: float = _f("idempotency keys of the management API and their answers", 48.0, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsSettings:
    """What a caller may cost."""

    message_bytes: int = _f("largest message of a peer", 262_144, 1024, 67_108_864)
    management_bytes: int = _f("largest body of a management call", 1_048_576, 1024, 67_108_864)
    catalog_page: int = _f("datasets on one page of the catalog", 100, 1, 1000)
    header_seconds: float = _f("time for the head of a request to arrive", 10.0, 0.1)
    body_seconds: float = _f("time for the body of a request to arrive", 30.0, 0.1)
    keepalive_seconds: float = _f("how long an idle connection stays open", 15.0, 0.1)
    drain_seconds: float = _f("at the end, running requests and streams have this time to finish; then they are cut", 20.0, 0)
    connections: int = _f("open connections for each listener", 1024, 1)
    bulk_threads: int = _f("threads for large answers under TLS; when all are busy, further ones go through the event loop", 16, 0, 256)
    connections_per_address: int = _f("open connections of one peer's address; behind a proxy all peers have the proxy's", 256, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetrySettings:
    """What the connector tells about itself."""

    log_level: str = _f("debug, info, warning or error", "info")
    log_format: str = _f("json for machines, console for people", "json")
    sample_ratio: float = _f("share of traces that are exported, 0 to 1; peers that want more kept get no more", 0.01, 0, 1)
    otlp_endpoint: str = _f("OpenTelemetry collector, for example http://127.0.0.1:4318; empty: nothing is sent", "")
    spans_file: Path | None = _f("file to which kept spans are appended, one JSON object a line; empty: none", None)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalSettings:
    """How permitted requests are agreed to."""

    delay_seconds: float = _f("wait this long before answering a request that policy permits", 0.0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogSettings:
    """What our catalog shows beside our own datasets."""

    nested: tuple[str, ...] = _f("participants of the registry whose catalogs are listed in ours, as pointers to where they are served", ())


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings. Paths are absolute; `url` of a listener is empty only where its port is 0."""

    participant: ParticipantSettings
    keys: KeysSettings = field(default_factory=KeysSettings)
    registry: RegistrySettings = field(default_factory=RegistrySettings)
    protocol: ListenerSettings = field(default_factory=lambda: ListenerSettings(port=8080))
    data: ListenerSettings = field(default_factory=lambda: ListenerSettings(port=8081))
    management: ManagementSettings = field(default_factory=ManagementSettings)
    ops: ListenerSettings = field(default_factory=lambda: ListenerSettings(port=8083))
    store: StoreSettings = field(default_factory=StoreSettings)
    egress: EgressSettings = field(default_factory=EgressSettings)
    sources: SourcesSettings = field(default_factory=SourcesSettings)
    pulls: PullsSettings = field(default_factory=PullsSettings)
    receipts: ReceiptsSettings = field(default_factory=ReceiptsSettings)
    credentials: Mapping[str, Path] = field(default_factory=dict)  # name -> file with the secret header value, for HTTP sources
    delivery: DeliverySettings = field(default_factory=DeliverySettings)
    edr: EdrSettings = field(default_factory=EdrSettings)
    metering: MeteringSettings = field(default_factory=MeteringSettings)
    ledger: LedgerSettings = field(default_factory=LedgerSettings)
    retention: RetentionSettings = field(default_factory=RetentionSettings)
    limits: LimitsSettings = field(default_factory=LimitsSettings)
    telemetry: TelemetrySettings = field(default_factory=TelemetrySettings)
    approval: ApprovalSettings = field(default_factory=ApprovalSettings)
    catalog: CatalogSettings = field(default_factory=CatalogSettings)
