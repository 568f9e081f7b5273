"""Settings: every mistake is found, named and given its remedy, all in one error."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.errors import SettingsError
from connector.settings import load, parse

HERE = Path("/etc/qiao")
SOUND = """
[participant]
id = "did:web:hospital.example"
name = "hospital"
role = "hospital"
[egress]
http = true
"""


def findings(text: str, environ: dict[str, str] | None = None, base: str = SOUND) -> dict[str, str]:
    """What is found in `base` with `text` merged over it: field -> problem and remedy."""
    document = tomllib.loads(base)
    for section, values in tomllib.loads(text).items():
        document[section] = {**document.get(section, {}), **values} if isinstance(values, dict) else values
    _, found = parse(document, environ or {}, HERE)
    return {finding.field: f"{finding.problem}; {finding.remedy}" for finding in found}


def test_sound_settings_have_no_finding_and_all_defaults():
    settings, found = parse(tomllib.loads(SOUND), {}, HERE)
    assert found == ()
    assert (settings.protocol.port, settings.data.port, settings.management.port, settings.ops.port) == (8080, 8081, 8082, 8083)
    assert settings.protocol.url == "http://127.0.0.1:8080"
    assert settings.keys.directory == HERE / "keys"
    assert settings.sources.roots == (HERE / "data",)
    assert settings.delivery.deadline_seconds == 86400
    assert not settings.protocol.tls


# (what is written, the field of the finding, what the finding says)
MISTAKES: list[tuple[str, str, str]] = [
    ("[particpant]\nid = 'x'", "particpant", "did you mean `participant`?"),
    ("[zzz]", "zzz", "known are approval"),
    ("protocol = 1", "protocol", "write a table: [protocol]"),
    ("credentials = 'x'", "credentials", "write a table"),
    ("[protocol]\nprot = 1", "protocol.prot", "did you mean `port`?"),
    ("[participant]\nid = 'hospital'", "participant.id", "is `hospital`, not a DID; write it as did:web:hospital.example"),
    ("[participant]\nid = ''", "participant.id", "not a DID"),
    ("[participant]\nid = 'did:web:a b'", "participant.id", "not a DID"),
    ("[participant]\nid = 7", "participant.id", "write text in quotes"),
    ("[participant]\nname = '../x'", "participant.name", "use 1 to 64 letters"),
    ("[participant]\nname = '-x'", "participant.name", "a letter or digit first"),
    ("[participant]\nrole = ' '", "participant.role", "printable characters"),
    ('[participant]\nrole = "a\\u001b[31m"', "participant.role", "printable characters"),
    ("[protocol]\nport = '8080'", "protocol.port", "is `8080`; write a whole number from 0 to 65535"),
    ("[protocol]\nport = true", "protocol.port", "is true; write a whole number"),
    ("[protocol]\nport = 65536", "protocol.port", "from 0 to 65535"),
    ("[protocol]\nport = -1", "protocol.port", "from 0 to 65535"),
    ("[protocol]\nhost = 'http://x'", "protocol.host", "without scheme and port"),
    ("[protocol]\nhost = ''", "protocol.host", "not an address"),
    ("[protocol]\nhost = '0.0.0.0'", "protocol.url", "which nobody can dial; give the address that others use"),
    ("[protocol]\nurl = 'hospital.example'", "protocol.url", "without http:// or https:// at its start"),
    ("[protocol]\nurl = 'ftp://hospital.example'", "protocol.url", "without http:// or https:// at its start"),
    ("[protocol]\nurl = 'https://'", "protocol.url", "not an address"),
    ("[protocol]\nurl = 'https://h.example:99999'", "protocol.url", "not an address"),
    ("[protocol]\nurl = 'https://user@h.example'", "protocol.url", "more than scheme, host, port and path"),
    ("[telemetry]\notlp_endpoint = 'http://u:p@h.example'", "telemetry.otlp_endpoint", "has a user before its host, which is not shown"),
    ("[protocol]\nurl = 'https://h.example/?a=b'", "protocol.url", "more than scheme, host, port and path"),
    ("[protocol]\nurl = 'https://h.example/dsp?'", "protocol.url", "more than scheme, host, port and path"),
    ("[protocol]\nurl = 'http://h.example'", "protocol.url", "plain http is for loopback only"),
    ("[data]\nurl = 'http://10.0.0.1:8081'", "data.url", "others can read along"),
    ("[egress]\nhttp = false", "protocol.url", "set egress.http = true"),
    ("[egress]\nhttp = 'yes'", "egress.http", "write true or false"),
    ("[protocol]\ncertificate = 'c.pem'", "protocol.certificate", "is given without its private key; give protocol.key"),
    ("[protocol]\nkey = 'k.pem'", "protocol.key", "give protocol.certificate"),
    ("[egress]\ncertificate = 'c.pem'", "egress.certificate", "is given without its private key; give egress.key"),
    ("[egress]\nkey = 'k.pem'", "egress.key", "give egress.certificate"),
    ("[data]\nclient_ca = 'ca.pem'", "data.client_ca", "is given without TLS, within which clients show certificates"),
    (
        "[data]\ncertificate = 'c.pem'\nkey = 'k.pem'\nclient_crl = 'crl.pem'",
        "data.client_crl",
        "is given without the authorities whose certificates it revokes; give data.client_ca",
    ),
    ("[management]\nclient_auth = 'maybe'", "management.client_auth", "choose one of require, request"),
    ("[limits]\nbulk_threads = -1", "limits.bulk_threads", "from 0 to 256"),
    ("[protocol]\ncertificate = 'c'\nkey = 'k'\nurl = 'http://127.0.0.1'", "protocol.url", "though the listener speaks TLS; write https"),
    ("[data]\nport = 8080", "data.port", "is 8080, which protocol.port has already"),
    ("[ops]\nhost = '0.0.0.0'\nport = 8082", "ops.port", "which management.port has already"),
    ("[management]\nhost = '0.0.0.0'\nurl = 'https://h.example'", "management.host", "others could read the admin token"),
    ("[management]\nhost = '192.168.1.5'", "management.host", "give management.certificate and management.key"),
    ("[store]\nkind = 'postgres'", "store.kind", "choose one of sqlite, memory"),
    ("[store]\npath = ''", "store.path", "is empty; write a path"),
    ('[store]\npath = "a\\u0000b"', "store.path", "write text in quotes"),
    ("[egress]\nallow = ['10.0.0.1/8']", "egress.allow", "has `10.0.0.1/8`, which is not a network"),
    ("[egress]\nallow = '10.0.0.0/8'", "egress.allow", "write a list in brackets"),
    ("[egress]\nports = [0]", "egress.ports", "from 1 to 65535"),
    ("[egress]\nports = ['443']", "egress.ports", "write whole numbers"),
    ("[sources]\nroots = ['']", "sources.roots", "none of them empty"),
    ("[sources]\nroots = [1]", "sources.roots", "a list of texts"),
    ("[credentials]\nwarehouse = 1", "credentials.warehouse", "is not a path"),
    ("[delivery]\ndeadline_seconds = 0", "delivery.deadline_seconds", "of at least 1"),
    ("[delivery]\ndeadline_seconds = nan", "delivery.deadline_seconds", "write a number"),
    ("[delivery]\ndeadline_seconds = inf", "delivery.deadline_seconds", "write a number"),
    ("[delivery]\ndeadline_seconds = '1h'", "delivery.deadline_seconds", "is `1h`; write a number"),
    ("[delivery]\ndeadline_second = 1", "delivery.deadline_second", "did you mean `deadline_seconds`?"),
    ("[delivery]\nfirst_retry_seconds = 900", "delivery.retry_seconds_max", "below delivery.first_retry_seconds"),
    ("[edr]\ntoken_seconds = 100000", "edr.token_seconds", "from 1 to 86400"),
    ("[edr]\ntoken_seconds = 0.5", "edr.token_seconds", "from 1 to 86400"),  # a data address states whole seconds
    ("[metering]\nwindow_bytes = 1000", "metering.window_bytes", "from 262144 to 1073741824"),
    (
        "[metering]\nwindow_bytes = 600000",
        "metering.window_bytes",
        "not a multiple of 262144, the bytes that are proven together; write 524288",
    ),
    ("[metering]\ncredit_windows = 0", "metering.credit_windows", "from 1 to 64"),
    ("[retention]\ninbox_days = 0", "retention.inbox_days", "of at least 1"),
    ("[limits]\nmessage_bytes = 1", "limits.message_bytes", "from 1024"),
    ("[limits]\nmessage_bytes = 1e6", "limits.message_bytes", "write a whole number"),
    ("[limits]\ncatalog_page = 0", "limits.catalog_page", "from 1 to 1000"),
    ("[limits]\nkeepalive_seconds = 0", "limits.keepalive_seconds", "of at least 0.1"),
    ("[telemetry]\nlog_level = 'loud'", "telemetry.log_level", "choose one of debug, info, warning, error"),
    ("[telemetry]\nlog_format = 'xml'", "telemetry.log_format", "choose one of json, console"),
    ("[telemetry]\nsample_ratio = 1.5", "telemetry.sample_ratio", "from 0 to 1"),
    ("[telemetry]\notlp_endpoint = 'collector:4318'", "telemetry.otlp_endpoint", "without http:// or https://"),
    ("[approval]\ndelay_seconds = -1", "approval.delay_seconds", "of at least 0"),
]


@pytest.mark.parametrize(("text", "field", "says"), MISTAKES)
def test_a_mistake_is_named_with_its_remedy(text: str, field: str, says: str):
    found = findings(text)
    assert says in found.get(field, ""), found


@pytest.mark.parametrize("url", ["https://u:hush@h:99999", "https://u:hu[sh@h", "https://u:hu/sh@h", "u:hush@h", "https:/u:hush@h"])
def test_an_address_with_what_may_be_a_secret_is_not_shown_whatever_is_wrong_with_it(url: str):
    for section, field in (("protocol", "url"), ("telemetry", "otlp_endpoint")):
        said = findings(f"[{section}]\n{field} = '{url}'")[f"{section}.{field}"]
        assert said.startswith("is not shown, as it has an `@`"), said
        assert "sh@" not in said


# (environment, the field of the finding, what it says)
ENVIRONMENT_MISTAKES = [
    ({"QIAO_PROTOCOL_PORT": "http"}, "protocol.port", "is `http`; write a whole number"),
    ({"QIAO_PROTOCOL_PORT": ""}, "protocol.port", "write a whole number"),
    ({"QIAO_EGRESS_HTTP": "maybe"}, "egress.http", "write true or false"),
    ({"QIAO_EGRESS_PORTS": "443,x"}, "egress.ports", "write whole numbers"),
    ({"QIAO_EDR_TOKEN_SECONDS": "soon"}, "edr.token_seconds", "write a number"),
    ({"QIAO_PROTOCOL_PROT": "1"}, "QIAO_PROTOCOL_PROT", "did you mean `QIAO_PROTOCOL_PORT`?"),
    ({"QIAO_WHATEVER": "1"}, "QIAO_WHATEVER", "is not a setting"),
]


@pytest.mark.parametrize(("environ", "field", "says"), ENVIRONMENT_MISTAKES)
def test_a_mistake_in_the_environment_is_named_like_any_other(environ: dict[str, str], field: str, says: str):
    found = findings("", environ)
    assert says in found.get(field, ""), found


@pytest.mark.parametrize("field", ["id", "name", "role"])
def test_what_has_no_safe_default_must_be_given(field: str):
    base = "\n".join(line for line in SOUND.splitlines() if not line.startswith(f"{field} ="))
    assert findings("", base=base)[f"participant.{field}"].startswith("is missing; give ")


def test_all_mistakes_are_reported_together_and_each_field_once(tmp_path: Path):
    path = tmp_path / "connector.toml"
    path.write_text("[participant]\nid = 1\n[protocol]\nport = 'x'\n[egres]\nhttp = true\n[store]\nkind = 'x'\n")
    with pytest.raises(SettingsError) as caught:
        load(path, {"QIAO_LIMITS_CONNECTIONS": "many"})
    fields = [reason.split("`")[1] for reason in caught.value.reasons]
    assert {"egres", "participant.id", "participant.name", "participant.role", "protocol.port", "store.kind", "limits.connections"} <= set(
        fields
    )
    assert len(fields) == len(set(fields))
    assert str(path) in caught.value.message


@pytest.mark.parametrize(
    "name", ["QIAO_SERVICE_HOST", "QIAO_PORT", "QIAO_PORT_8080_TCP_ADDR", "QIAO_DEMO_SERVICE_PORT_HTTP", "QIAO_TOKEN", "QIAO_CONFIG"]
)
def test_what_kubernetes_and_the_command_line_put_into_the_environment_is_no_mistake(name: str):
    assert findings("", {name: "tcp://10.0.0.1:8080", "HOME": "/"}) == {}


def test_the_environment_overrides_the_file():
    environ = {
        "QIAO_PROTOCOL_PORT": "9090",
        "QIAO_EGRESS_ALLOW": "127.0.0.0/8, ::1/128",
        "QIAO_EGRESS_PORTS": "",
        "QIAO_SOURCES_ROOTS": "/srv/a,b",
        "QIAO_EGRESS_HTTP": "1",
        "QIAO_STORE_PATH": "/var/lib/qiao.db",
        "QIAO_CREDENTIALS_WAREHOUSE": "w.secret",
        "QIAO_EDR_TOKEN_SECONDS": "2",
    }
    settings, found = parse(tomllib.loads(SOUND + "ports = [1]\n[protocol]\nport = 'broken'\n"), environ, HERE)
    assert found == ()
    assert settings.protocol.url == "http://127.0.0.1:9090"
    assert settings.egress.allow == ("127.0.0.0/8", "::1/128")
    assert settings.egress.ports == ()
    assert settings.sources.roots == (Path("/srv/a"), HERE / "b")
    assert settings.store.path == Path("/var/lib/qiao.db")
    assert settings.credentials == {"warehouse": HERE / "w.secret"}
    assert settings.edr.token_seconds == 2.0


def test_an_address_is_made_of_host_and_port_unless_given():
    document = tomllib.loads(
        SOUND
        + "[protocol]\nhost = '::1'\n[data]\ncertificate = 'c'\nkey = 'k'\n"
        + "[management]\nport = 0\n[ops]\nurl = 'http://ops.example/'\nhost = '0.0.0.0'\n"
    )
    settings, found = parse(document, {}, HERE)
    assert found == ()
    assert settings.protocol.url == "http://[::1]:8080"
    assert settings.data.url == "https://127.0.0.1:8081"
    assert settings.management.url == ""
    assert settings.ops.url == "http://ops.example"


def test_several_listeners_may_ask_for_any_free_port():
    assert findings("[protocol]\nport = 0\n[data]\nport = 0") == {}


def test_management_may_listen_elsewhere_with_tls():
    text = "[management]\nhost = '10.0.0.5'\ncertificate = 'c'\nkey = 'k'"
    assert findings(text) == {}


@pytest.mark.parametrize(
    ("content", "says"), [(b"[participant", "are not TOML"), (b"\xff\xfe", "cannot be read"), (None, "run `connector init`")]
)
def test_a_file_that_cannot_be_read_is_one_clear_error(tmp_path: Path, content: bytes | None, says: str):
    path = tmp_path / "connector.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError, match=says):
        load(path, {})


PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
FLAT = PLAIN | st.lists(PLAIN, max_size=3) | st.dictionaries(st.text(max_size=5), PLAIN, max_size=3)
JSON = FLAT | st.lists(FLAT, max_size=3) | st.dictionaries(st.text(max_size=5), FLAT, max_size=3)
SECTION = st.sampled_from(
    ["participant", "protocol", "management", "egress", "store", "credentials", "limits", "telemetry", "sources", "x"]
)
FIELD = st.sampled_from(
    ["id", "name", "port", "host", "url", "certificate", "allow", "http", "ports", "roots", "kind", "message_bytes", "sample_ratio", "y"]
)


@given(st.dictionaries(SECTION, JSON | st.dictionaries(FIELD, JSON, max_size=4), max_size=4))
def test_no_document_breaks_the_reader(document: dict[str, Any]):
    _, found = parse(document, {}, HERE)
    fields = [finding.field for finding in found]
    assert all(finding.problem and finding.remedy for finding in found)
    assert "participant.id" in fields or isinstance(document.get("participant", {}).get("id"), str)
