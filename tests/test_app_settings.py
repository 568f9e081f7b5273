"""A running connector reads its settings, registry, keys, certificates and admin token again, all of it or nothing."""

import asyncio
import hashlib
import ssl
import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trustme

from connector import app_settings
from connector.errors import SettingsError
from connector.settings import Settings, load
from connector.settings.fields import MeteringSettings, PullsSettings, StoreSettings
from connector.values import replace
from tests import pair
from tests.adapters.test_peer_http import serving
from tests.adapters_streams.test_dialled import beginning
from tests.faults.patience import own_patience

TOKEN = "another-token"


def toml(site: pair.Site, **changed: str) -> Path:
    """The settings of a site as a file; `changed` replaces whole sections."""
    s = site.settings
    ports = {name: getattr(s, name).port for name in ("protocol", "data", "management", "ops")}
    sections = {
        "participant": f'id = "{s.participant.id}"\nname = "{s.participant.name}"\nrole = "{s.participant.role}"',
        "keys": f'directory = "{s.keys.directory}"',
        "registry": f'directory = "{s.registry.directory}"',
        **{name: f"port = {port}" for name, port in ports.items()},
        "store": 'kind = "memory"',
        "egress": 'allow = ["127.0.0.0/8", "::1/128"]\nhttp = true\nports = []',
        "sources": f'roots = ["{site.root / "data"}"]',
        "pulls": f'roots = ["{site.root / "out"}"]',
        "telemetry": "sample_ratio = 0.0",
    } | changed
    sections["management"] += f'\ntoken_hash_file = "{s.management.token_hash_file}"'
    path = site.root / "connector.toml"
    path.write_text("\n".join(f"[{name}]\n{text}\n" for name, text in sections.items()))
    return path


def loaded(site: pair.Site, **changed: str) -> tuple[pair.Site, Path]:
    path = toml(site, **changed)
    return pair.Site(site.root, load(path, {})), path


async def asked_with(us: pair.Running, token: str) -> int:
    url = f"http://127.0.0.1:{us.connector.ports['management']}/v1/self"
    return (await pair.call(us.http, "GET", url, headers={"Authorization": f"Bearer {token}"})).status


@pytest.mark.asyncio
async def test_settings_that_may_change_are_applied_without_a_restart_and_the_others_are_named(tmp_path: Path):
    site, path = loaded(pair.site(tmp_path / "hospital", "hospital"))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "d.csv").write_text("1\n")
    async with pair.running(site, path=path) as us:
        body = {"title": "t", "source": {"type": "file", "path": str(elsewhere / "d.csv")}, "policies": [pair.OPEN]}
        assert (await us.manage("PUT", "/datasets/urn:d", body)).status == 400
        toml(site, sources=f'roots = ["{elsewhere}"]', limits="catalog_page = 7\nconnections = 9", edr="token_seconds = 11.0")
        said = (await us.asked("POST", "/reload"))["changed"]
        assert (await us.manage("PUT", "/datasets/urn:d", body)).status == 201
    assert sorted(said) == [
        "edr.token_seconds: applied",
        "limits.catalog_page: applied",
        "limits.connections: differs from what runs; restart to apply it",
        "sources.roots: applied",
    ]


@pytest.mark.asyncio
async def test_what_is_on_its_way_from_whom_a_reload_allows_no_more_is_cut_at_once(tmp_path: Path):
    site, path = loaded(pair.site(tmp_path / "hospital", "hospital"))
    came = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.set()
        await beginning(reader, writer)

    async with serving(slow) as (server, port), pair.running(site, path=path) as us:
        body = {"title": "t", "source": {"type": "http", "url": f"http://127.0.0.1:{port}/"}, "policies": [pair.OPEN]}
        publishing = asyncio.create_task(us.manage("PUT", "/datasets/urn:d", body))
        async with asyncio.timeout(10):
            await came.wait()
        assert await us.asked("POST", "/reload") == {"changed": []}
        assert not server.closed.is_set()
        toml(site, egress="allow = []\nhttp = true\nports = []")
        assert await us.asked("POST", "/reload") == {"changed": ["egress.allow: applied"]}
        async with own_patience(1.0):
            await server.closed.wait()
        assert (await publishing).status >= 400
        refused = await us.manage("PUT", "/datasets/urn:d", body)
        assert "not at a public address" in refused.json["detail"], refused.json


@pytest.mark.asyncio
async def test_a_mistake_anywhere_changes_nothing_anywhere(tmp_path: Path):
    site, path = loaded(pair.site(tmp_path / "hospital", "hospital"))
    stranger = pair.site(tmp_path / "lab", "lab")
    async with pair.running(site, path=path) as us:
        (site.settings.registry.directory / "lab.jsonld").write_bytes(stranger.description())
        for break_it, mend in (
            (lambda: toml(site, limits="catalog_page = 0"), lambda: toml(site)),
            (lambda: site.settings.management.token_hash_file.write_text("no hash"), lambda: None),
        ):
            break_it()
            answer = await us.manage("POST", "/reload")
            assert answer.status == 422, answer.body
            assert [p["name"] for p in (await us.asked("GET", "/participants"))["items"]] == ["hospital"]
            mend()
        site.settings.management.token_hash_file.write_text(hashlib.sha256(TOKEN.encode()).hexdigest())
        assert "added `did:web:lab.example` (`lab`)" in (await us.asked("POST", "/reload"))["changed"]
        assert await asked_with(us, pair.TOKEN) == 401
        assert await asked_with(us, TOKEN) == 200


@pytest.mark.asyncio
async def test_a_reload_names_the_mistakes_of_fields_and_of_files_in_one_round(tmp_path: Path):
    site, path = loaded(pair.site(tmp_path / "hospital", "hospital"))
    async with pair.running(site, path=path) as us:
        (site.settings.registry.directory / "lab.jsonld").write_text("[")
        toml(site, limits="catalog_page = 0")
        reasons = " ".join((await us.manage("POST", "/reload")).json["reasons"])
    assert "`limits.catalog_page`" in reasons
    assert "`lab.jsonld`" in reasons


@pytest.mark.parametrize(("at", "count"), [(0.0, 1), (1_900_000_000.0, 0)])
def test_a_key_that_signs_nothing_now_is_among_the_mistakes(tmp_path: Path, at: float, count: int):
    site = pair.site(tmp_path / "hospital", "hospital")
    (key,) = site.settings.keys.directory.glob("*.key")
    key.write_text(key.read_text().replace("}", ',"notBefore":"2026-01-01T00:00:00Z"}'))
    found = app_settings.mistakes(site.settings, frozenset(), at)
    assert [reason for reason in found if "is valid now" in reason] == list(found)
    assert len(found) == count


@pytest.mark.asyncio
async def test_a_renewed_certificate_counts_for_the_next_connection(tmp_path: Path):
    root = tmp_path / "hospital"
    made = pair.site(root, "hospital", scheme="https")
    first, second = trustme.CA(), trustme.CA()

    def put(ca: trustme.CA) -> None:
        issued = ca.issue_cert("localhost")
        (root / "cert.pem").write_bytes(b"".join(each.bytes() for each in issued.cert_chain_pems))
        (root / "key.pem").write_bytes(issued.private_key_pem.bytes())

    put(first)
    tls = f'host = "localhost"\ncertificate = "{root / "cert.pem"}"\nkey = "{root / "key.pem"}"\nport = '
    site, path = loaded(made, protocol=f"{tls}{made.settings.protocol.port}", data=f"{tls}{made.settings.data.port}")

    async def shakes_hands(ca: trustme.CA) -> bool:
        context = ssl.create_default_context()
        ca.configure_trust(context)
        try:
            _, writer = await asyncio.open_connection("localhost", us.connector.ports["protocol"], ssl=context)
        except ssl.SSLError:
            return False
        writer.close()
        return True

    async with pair.running(site, path=path) as us:
        assert await shakes_hands(first)
        (root / "cert.pem").write_text("broken")
        assert (await us.manage("POST", "/reload")).status == 422
        assert await shakes_hands(first)
        put(second)
        changed = (await us.asked("POST", "/reload"))["changed"]
        assert sorted(changed) == ["data.certificate: loaded again", "protocol.certificate: loaded again"]
        assert await shakes_hands(second)
        assert not await shakes_hands(first)


def test_a_nested_catalog_of_somebody_unknown_is_left_out(tmp_path: Path):
    class Nobody:
        def find(self, _name: str) -> None:
            return None

    settings = pair.site(tmp_path / "hospital", "hospital").settings
    pointed = replace(settings, catalog=replace(settings.catalog, nested=("lab",)))
    assert app_settings.nested(pointed, Nobody()) == ()  # type: ignore[arg-type]


@pytest.mark.parametrize("broken", ["data.client_ca", "data.client_crl", "egress.certificate", "egress.ca_file", "egress.crl_file"])
def test_what_vouches_for_others_and_what_we_show_them_is_tried_too(tmp_path: Path, broken: str):
    site = pair.site(tmp_path / "hospital", "hospital")
    made = trustme.CA().issue_cert("localhost")
    files = {name: tmp_path / f"{name}.pem" for name in ("certificate", "key")}
    files["certificate"].write_bytes(made.cert_chain_pems[0].bytes())
    made.private_key_pem.write_to_path(files["key"])
    section, _, field = broken.partition(".")
    if field == "client_crl":
        files["client_ca"] = files["certificate"]
    (tmp_path / "broken.pem").write_text("words")
    changed = replace(getattr(site.settings, section), **(files | {field: tmp_path / "broken.pem"}))
    found = app_settings.mistakes(replace(site.settings, **{section: changed}), frozenset(), time.time())
    assert [reason.split("`")[1] for reason in found] == [broken]
    assert app_settings.mistakes(replace(site.settings, **{section: changed}), frozenset({broken}), time.time()) == ()


def test_a_broken_certificate_is_named_with_its_remedy(tmp_path: Path):
    site = pair.site(tmp_path / "hospital", "hospital")
    (tmp_path / "c.pem").write_text("no certificate")
    broken = replace(site.settings.data, certificate=tmp_path / "c.pem", key=tmp_path / "c.pem")
    settings: Settings = replace(site.settings, data=broken)
    app_settings.check_tls(settings, "protocol")
    with pytest.raises(SettingsError, match=r"`data\.certificate` is .* give a pair in PEM"):
        app_settings.check_tls(settings, "data")


def found(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*")}


@pytest.mark.asyncio
async def test_content_logs_lie_beside_the_database_unless_said_otherwise_and_go_with_a_store_in_memory(tmp_path: Path):
    settings = pair.site(tmp_path / "hospital", "hospital", store="sqlite").settings
    before = found(tmp_path)
    async with AsyncExitStack() as stack:
        app_settings.content_logs(settings, stack)
        app_settings.content_logs(replace(settings, metering=MeteringSettings(directory=tmp_path / "there")), stack)
        app_settings.content_logs(replace(settings, store=StoreSettings(kind="memory", path=settings.store.path)), stack)
    assert found(tmp_path) - before == {"hospital/content-logs", "hospital/content-logs/salt", "there", "there/salt"}


@pytest.mark.asyncio
async def test_a_download_becomes_no_key_of_ours_and_nobody_a_member_by_one(tmp_path: Path):
    site = pair.site(tmp_path / "a", "hospital", store="sqlite")
    site = replace(site, settings=replace(site.settings, pulls=PullsSettings(roots=(site.root,))))
    async with pair.running(site) as us:
        for out in ("keys/x.key", "registry/x.jsonld", "content-logs/x", "connector.db-journal"):
            body = {"peer": "hospital", "dataset": "urn:d", "out": str(site.root / out), "purposes": []}
            answer = await us.manage("POST", "/pulls", body)
            assert (answer.status, answer.json.get("pointer")) == (400, "/out"), (out, answer.body)
