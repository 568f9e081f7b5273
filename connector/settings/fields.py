"""The settings as a shape: one frozen class for each section of `connector.toml`, with defaults, bounds and documentation.

What a field says of itself is its documentation; `connector init` writes it above the field. Times are in the unit of the name's end.
"""

from collections.abc import Mapping
from functools import cache
from math import inf
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeGuard, get_args, get_origin

from msgspec import NODEFAULT, structs

from connector.values import Value, field


class Says(NamedTuple):
    """The documentation of a field, and its bounds: inclusive, in the field's unit."""

    doc: str
    low: float = -inf
    high: float = inf


class Field(NamedTuple):
    """A field of a section, or a section; `default` is NODEFAULT where it has to be given."""

    name: str
    type: Any
    default: Any
    says: Says


@cache
def fields_of(section: type[Value]) -> tuple[Field, ...]:
    """The fields of a section, or the sections of the settings, in their order."""
    found = []
    for each in structs.fields(section):
        kind, *says = get_args(each.type) if get_origin(each.type) is Annotated else (each.type, Says(""))
        default = each.default if each.default_factory is NODEFAULT else each.default_factory()
        found.append(Field(each.name, kind, default, *says))
    return tuple(found)


def is_section(kind: object) -> TypeGuard[type[Value]]:
    """Whether this type of a field of the settings is a section whose fields are known."""
    return isinstance(kind, type) and issubclass(kind, Value)


class ParticipantSettings(Value, kw_only=True):
    """Who we are."""

    id: Annotated[str, Says("our decentralized identifier, for example did:web:hospital.example")]
    name: Annotated[str, Says("the short name that others type; letters, digits, dots, dashes and underscores")]
    role: Annotated[str, Says("our role in the data space, for example hospital, biopharma, registry")]


class KeysSettings(Value, kw_only=True):
    """Our own signing keys."""

    directory: Annotated[Path, Says("one file <kid>.key for each key, readable by the owner only; the newest one signs")] = Path("keys")


class RegistrySettings(Value, kw_only=True):
    """The participants of the data space."""

    directory: Annotated[Path, Says("one JSON-LD self-description for each participant, ours included")] = Path("participants")


class ListenerSettings(Value, kw_only=True):
    """One listening address."""

    host: Annotated[str, Says("the address to listen on")] = "127.0.0.1"
    port: Annotated[int, Says("the port to listen on; 0 takes any free one", 0, 65535)] = 0
    url: Annotated[str, Says("the address that others use, without a slash at its end; empty: made of host and port")] = ""
    certificate: Annotated[Path | None, Says("TLS certificate chain, PEM; empty: no TLS here")] = None
    key: Annotated[Path | None, Says("private key of the certificate, PEM")] = None
    client_ca: Annotated[
        Path | None, Says("authorities for certificates of clients, PEM; they are asked for one beside their token; empty: not")
    ] = None
    client_auth: Annotated[str, Says("require: every client shows a certificate; request: those that have one")] = "require"
    client_crl: Annotated[
        Path | None,
        Says("lists of revoked certificates, PEM: one of each authority in client_ca, and of those between; empty: none is revoked"),
    ] = None

    @property
    def tls(self) -> bool:
        """Whether this listener speaks TLS itself."""
        return self.certificate is not None


class ManagementSettings(ListenerSettings, kw_only=True):
    """The listener of the operator's API. Same as the others, and who may call it."""

    host: Annotated[str, Says("the address to listen on; anything but loopback needs TLS")] = "127.0.0.1"
    port: Annotated[int, Says("the port to listen on; 0 takes any free one", 0, 65535)] = 8082
    url: Annotated[str, Says("the address that the command line uses; empty: made of host and port")] = ""
    token_hash_file: Annotated[Path, Says("SHA-256 of the admin token, in hexadecimal")] = Path("admin-token.sha256")


class StoreSettings(Value, kw_only=True):
    """Where state is kept."""

    kind: Annotated[str, Says("sqlite; memory forgets everything at the end and is for tests")] = "sqlite"
    path: Annotated[Path, Says("the database file")] = Path("connector.db")
    free_percent: Annotated[
        float, Says("with less free of a disk that we write to, no new transfer is served; 0: whatever is free", 0, 50)
    ] = 5.0


class EgressSettings(Value, kw_only=True):
    """Whom this connector may dial."""

    allow: Annotated[tuple[str, ...], Says("networks that may be dialled although they are not public, for example 10.1.0.0/16")] = ()
    http: Annotated[bool, Says("allow http without TLS; for development on one machine only")] = False
    ports: Annotated[tuple[int, ...], Says("ports that may be dialled; an empty list allows any", 1, 65535)] = (443, 8443)
    ca_file: Annotated[Path | None, Says("certificate authorities to trust beside the system's, PEM; empty: the system's only")] = None
    certificate: Annotated[Path | None, Says("certificate chain that we show to peers and sources that ask for one, PEM; empty: none")] = (
        None
    )
    key: Annotated[Path | None, Says("private key of that certificate, PEM")] = None
    crl_file: Annotated[
        Path | None,
        Says(
            "lists of revoked certificates, PEM: one of every authority of every chain that we are shown, the system's and the roots"
            " included; a server whose chain has an authority without a list is not believed; empty: none is revoked"
        ),
    ] = None


class SourcesSettings(Value, kw_only=True):
    """What may be published."""

    roots: Annotated[tuple[Path, ...], Says("published files must lie below one of these directories")] = (Path("data"),)


class PullsSettings(Value, kw_only=True):
    """Where downloads may go."""

    roots: Annotated[tuple[Path, ...], Says("downloads must lie below one of these directories")] = (Path("."),)


class ReceiptsSettings(Value, kw_only=True):
    """How we sign for what we fetch."""

    after: Annotated[str, Says("what is done with data before a receipt: fsync, outlives a loss of power; write, outlives the process")] = (
        "fsync"
    )


class DeliverySettings(Value, kw_only=True):
    """How long we try, and how long we wait for others."""

    deadline_seconds: Annotated[float, Says("after this time without success a message becomes a dead letter", 1)] = 86400.0
    first_retry_seconds: Annotated[float, Says("pause before the second attempt; each further one doubles, with jitter", 0.001)] = 0.05
    retry_seconds_max: Annotated[float, Says("the longest pause between two attempts", 0.001)] = 300.0
    doubt_seconds: Annotated[
        float, Says("a refusal that may come from a proxy (401, 403, 404) is believed when it was repeated for this time", 0)
    ] = 30.0
    step_deadline_seconds: Annotated[
        float, Says("a peer has this time for a step that nobody has to decide on; then the process is terminated", 0.1)
    ] = 3600.0
    approval_deadline_seconds: Annotated[
        float, Says("an operator has this time to decide, ours and the peer's, or to replay a dead letter", 0.1)
    ] = 604800.0


class EdrSettings(Value, kw_only=True):
    """Access tokens of the data listener."""

    token_seconds: Annotated[float, Says("life of an access token; consumers renew ahead of its end", 1, 86400)] = 300.0
    quiet_seconds: Annotated[float, Says("a transfer whose bytes were all fetched is completed after this quiet time", 0.01)] = 60.0


class MeteringSettings(Value, kw_only=True):
    """How what we serve is proven and counted."""

    directory: Annotated[Path | None, Says("hashes of what is published, one file for each; empty: `content-logs` beside the database")] = (
        None
    )
    window_bytes: Annotated[int, Says("a consumer signs for so many at least at a time; a multiple of 262144", 262_144, 1_073_741_824)] = (
        16_777_216
    )
    credit_windows: Annotated[
        int, Says("so many windows are sent beyond the last receipt, and no more; they are what can be in dispute", 1, 64)
    ] = 8
    spool_bytes: Annotated[int, Says("of each live transfer are kept until they are acknowledged; then its source waits", 33_554_432)] = (
        100_663_296
    )
    untaken_seconds: Annotated[
        float,
        Says(
            "a live transfer whose source has ended waits so long for a consumer that takes no more of it; then it ends, and the rest is"
            " gone",
            0.1,
        ),
    ] = 604800.0


class LedgerSettings(Value, kw_only=True):
    """How others can tell that our ledger only grows."""

    witness: Annotated[
        bool, Says("exchange checkpoints with counterparties: they cosign ours, and we theirs; without, nobody vouches for us")
    ] = True


class RetentionSettings(Value, kw_only=True):
    """How long finished things are kept."""

    inbox_days: Annotated[float, Says("messages of peers, for the answer to a repeat", 1)] = 30.0
    processes_days: Annotated[float, Says("negotiations, transfers and pulls, after their end, and the dead letters of these", 1)] = 365.0
    keys_hours: Annotated[
        float, Says("idempotency keys of the management API and their answers, and parts of ranges, which orders go on with as long", 1)
    ] = 48.0
    parts_days: Annotated[
        float, Says("parts of whole files and of live data that failed or cancelled orders have left: they can be read by hand", 1)
    ] = 30.0


class LimitsSettings(Value, kw_only=True):
    """What a caller may cost."""

    message_bytes: Annotated[int, Says("largest message of a peer", 1024, 67_108_864)] = 262_144
    management_bytes: Annotated[int, Says("largest body of a management call", 1024, 67_108_864)] = 1_048_576
    catalog_page: Annotated[int, Says("datasets on one page of the catalog", 1, 1000)] = 100
    header_seconds: Annotated[float, Says("time for the head of a request to arrive", 0.1)] = 10.0
    body_seconds: Annotated[float, Says("time for the body of a request to arrive", 0.1)] = 30.0
    keepalive_seconds: Annotated[float, Says("how long an idle connection stays open", 0.1)] = 15.0
    drain_seconds: Annotated[float, Says("at the end, running requests and streams have this time to finish; then they are cut", 0)] = 20.0
    connections: Annotated[int, Says("open connections for each listener", 1)] = 1024
    bulk_threads: Annotated[
        int, Says("threads for large answers under TLS; when all are busy, further ones go through the event loop", 0, 256)
    ] = 16
    connections_per_address: Annotated[
        int, Says("open connections of one peer's address; behind a proxy all peers have the proxy's", 1)
    ] = 256


class TelemetrySettings(Value, kw_only=True):
    """What the connector tells about itself."""

    log_level: Annotated[str, Says("debug, info, warning or error")] = "info"
    log_format: Annotated[str, Says("json for machines, console for people")] = "json"
    sample_ratio: Annotated[float, Says("share of traces that are exported, 0 to 1; peers that want more kept get no more", 0, 1)] = 0.01
    otlp_endpoint: Annotated[str, Says("OpenTelemetry collector, for example http://127.0.0.1:4318; empty: nothing is sent")] = ""
    spans_file: Annotated[Path | None, Says("file to which kept spans are appended, one JSON object a line; empty: none")] = None


class ApprovalSettings(Value, kw_only=True):
    """How permitted requests are agreed to."""

    delay_seconds: Annotated[float, Says("wait this long before answering a request that policy permits", 0)] = 0.0


class CatalogSettings(Value, kw_only=True):
    """What our catalog shows beside our own datasets."""

    nested: Annotated[
        tuple[str, ...], Says("participants of the registry whose catalogs are listed in ours, as pointers to where they are served")
    ] = ()


class Settings(Value, kw_only=True):
    """All settings. Paths are absolute; `url` of a listener is empty only where its port is 0."""

    participant: ParticipantSettings
    keys: KeysSettings = KeysSettings()
    registry: RegistrySettings = RegistrySettings()
    protocol: ListenerSettings = ListenerSettings(port=8080)
    data: ListenerSettings = ListenerSettings(port=8081)
    management: ManagementSettings = ManagementSettings()
    ops: ListenerSettings = ListenerSettings(port=8083)
    store: StoreSettings = StoreSettings()
    egress: EgressSettings = EgressSettings()
    sources: SourcesSettings = SourcesSettings()
    pulls: PullsSettings = PullsSettings()
    receipts: ReceiptsSettings = ReceiptsSettings()
    credentials: Mapping[str, Path] = field(default_factory=dict)  # name -> file with the secret header value, for HTTP sources
    delivery: DeliverySettings = DeliverySettings()
    edr: EdrSettings = EdrSettings()
    metering: MeteringSettings = MeteringSettings()
    ledger: LedgerSettings = LedgerSettings()
    retention: RetentionSettings = RetentionSettings()
    limits: LimitsSettings = LimitsSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    approval: ApprovalSettings = ApprovalSettings()
    catalog: CatalogSettings = CatalogSettings()
