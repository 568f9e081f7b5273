"""The composed connector: its start and what stops it, TLS at every door, traces that cross, and keys that overlap."""

import asyncio
import json
import os
import socket
import sqlite3
import ssl
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme

from connector import app
from connector.adapters import keys
from connector.adapters.sqlite_schema import shipped
from connector.app import Automatic
from connector.dsp.exchange import Process
from connector.dsp.messages import Kind, Move, Role
from connector.errors import SettingsError, StoreError
from connector.metering.objects import manifest_of
from connector.ports import Act
from connector.settings.fields import MeteringSettings, TelemetrySettings
from connector.values import replace
from tests import pair
from tests.pair import TOKEN, Answer, Running, Site, call, running, site

DOORS = ("protocol", "data", "management", "ops")


def listening(at: Site) -> list[str]:
    """The doors that somebody opens to."""
    found = []
    for name in DOORS:
        with suppress(OSError), socket.create_connection(("127.0.0.1", getattr(at.settings, name).port), 1):
            found.append(name)
    return found


async def ops(at: Running, path: str) -> Answer:
    return await call(at.http, "GET", f"{at.site.settings.ops.url}{path}")


async def pulled(at: Running, peer: str, dataset: str, name: str = "file") -> dict[str, Any]:
    """Order a dataset and wait for its end."""
    out = at.site.root / "out" / name
    order = await at.asked("POST", "/pulls", {"peer": peer, "dataset": dataset, "out": str(out)}, status=201)
    return await ended(at, order["id"])


async def ended(at: Running, id: str) -> dict[str, Any]:
    changed = asyncio.Event()
    at.connector.journal.listen(lambda _changes, _evidence: changed.set())
    async with asyncio.timeout(pair.WAIT_SECONDS):
        while (view := await at.asked("GET", f"/pulls/{id}"))["stage"] not in ("done", "failed"):
            await changed.wait()
            changed.clear()
    return dict(view)


# ---- the start


@pytest.mark.asyncio
async def test_a_start_opens_every_door_and_is_ready(tmp_path: Path):
    at = site(tmp_path / "a", "hospital", store="sqlite")
    async with running(at) as us:
        assert listening(at) == list(DOORS)
        assert us.connector.ports == {name: getattr(at.settings, name).port for name in DOORS}
        assert (await ops(us, "/readyz")).json == {"ready": True, "faults": {}}
        assert (await ops(us, "/livez")).status == 200
        assert b"qiao_messages" in (await ops(us, "/metrics")).body
    assert listening(at) == []


@pytest.mark.asyncio
async def test_what_is_fetched_and_what_is_brought_under_an_agreement_share_one_watch_of_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    made, plain = list[Any](), app.Meters

    def meters(*of: Any) -> Any:
        made.append(plain(*of))
        return made[-1]

    monkeypatch.setattr(app, "Meters", meters)
    async with running(site(tmp_path / "hospital", "hospital")):
        assert len(made) == 1


@pytest.mark.asyncio
async def test_a_database_of_a_newer_program_is_left_alone(tmp_path: Path):
    at = site(tmp_path / "a", "hospital", store="sqlite")
    async with running(at) as us:
        await us.publish("urn:test:kept")
    newer = shipped()[-1].version + 1
    with sqlite3.connect(at.settings.store.path) as db:
        db.execute("insert into migration(version, sha256, applied) values (?, 'x', 0)", (newer,))
    db.close()
    before = at.settings.store.path.read_bytes()
    with pytest.raises(StoreError, match=f"has schema {newer}.*start the newer program"):
        await app.start(at.settings)
    assert listening(at) == []
    assert at.settings.store.path.read_bytes() == before


@pytest.mark.asyncio
async def test_a_second_connector_on_the_same_file_is_refused_and_the_first_goes_on(tmp_path: Path):
    at, other = site(tmp_path / "a", "hospital", store="sqlite"), site(tmp_path / "b", "biopharma", store="sqlite")
    other = other.changed(store=at.settings.store)
    async with running(at) as us:
        for second in (other.settings, replace(other.settings, participant=at.settings.participant)):
            with pytest.raises(StoreError, match=rf"in use by another connector, process {os.getpid()}; stop that one"):
                await app.start(second)
        assert listening(other) == []
        await us.publish("urn:test:first")
    async with running(other):
        assert listening(other) == list(DOORS)


@pytest.mark.asyncio
@pytest.mark.parametrize("taken", DOORS)
async def test_a_door_that_cannot_be_opened_leaves_none_open(tmp_path: Path, taken: str):
    at = site(tmp_path / "a", "hospital")
    port = getattr(at.settings, taken).port
    with socket.create_server(("127.0.0.1", port)), pytest.raises(SettingsError, match=rf"`{taken}\.port` {port}.*choose another port"):
        await app.start(at.settings)
    assert listening(at) == []
    async with running(at):
        assert listening(at) == list(DOORS)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("break_it", "says"),
    [
        (lambda at: next(at.settings.keys.directory.iterdir()).write_text("{}"), "has no `created`"),
        (lambda at: (at.settings.registry.directory / "x.jsonld").write_text("["), "x.jsonld"),
        (lambda at: at.settings.management.token_hash_file.write_text("nothing"), "connector token"),
        (lambda at: at.settings.management.token_hash_file.write_text("00" * 31), "is no SHA-256 in hexadecimal; run `connector token`"),
        (lambda at: at.settings.management.token_hash_file.write_text(""), "connector token"),
        (lambda at: at.settings.store.path.write_text("no database at all, but long enough to have a header" * 100), "database"),
    ],
    ids=["keys", "registry", "token", "half a token", "no token", "store"],
)
async def test_what_is_broken_on_the_disk_stops_the_start_with_its_reason(tmp_path: Path, break_it: Any, says: str):
    at = site(tmp_path / "a", "hospital", store="sqlite")
    break_it(at)
    with pytest.raises((SettingsError, StoreError)) as refused:
        await app.start(at.settings)
    assert says in " ".join(refused.value.reasons)
    assert listening(at) == []


@pytest.mark.asyncio
async def test_all_files_that_are_broken_are_named_in_one_refusal_of_a_start_and_of_a_reload(tmp_path: Path):
    at = secured(trustme.CA(), site(tmp_path / "a", "hospital", scheme="https"))
    broken = {
        next(at.settings.keys.directory.iterdir()): "has no `created`",
        at.settings.registry.directory / "hospital.jsonld": "`hospital.jsonld`",
        at.settings.management.token_hash_file: "`management.token_hash_file`",
        at.root / "chain.pem": "`data.certificate`",
    }
    async with running(at) as us:
        for path in broken:
            path.write_text("{}")
        for attempt in (us.connector.reload(), app.start(at.settings)):
            with pytest.raises(SettingsError) as refused:
                await attempt
            for says in broken.values():
                assert any(says in reason for reason in refused.value.reasons), says


@pytest.mark.asyncio
async def test_spans_that_cannot_be_written_stop_the_start(tmp_path: Path):
    at = site(tmp_path / "a", "hospital", telemetry=TelemetrySettings(spans_file=tmp_path / "none" / "spans.jsonl"))
    with pytest.raises(SettingsError, match=r"`telemetry\.spans_file`"):
        await app.start(at.settings)


def test_the_automatic_approver_agrees_after_its_delay_and_never_on_its_own():
    process = Process(Kind.NEGOTIATION, "p", Role.PROVIDER, "did:web:x", "https://x.test")
    act = Act(Move.CONTRACT_TERMINATION, code="X", reasons=("because",))
    assert Automatic(0.0).next_act(process, act) is act
    assert Automatic(2.0).next_act(process, act) == replace(act, delay_seconds=2.0)
    assert Automatic(2.0).next_act(process, replace(act, delay_seconds=1.0)) == replace(act, delay_seconds=1.0)
    assert Automatic(2.0).next_act(process, None) is None


# ---- readiness


@pytest.mark.asyncio
@pytest.mark.parametrize("step", ["the protocol door", "the outbox", "the orders"])
async def test_nobody_is_ready_before_every_door_is_open_and_what_was_left_is_taken_up(
    tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
):
    """How long a step of the start takes depends on what was left open; here it takes as long as the test likes."""
    begun, go = asyncio.Event(), asyncio.Event()

    def held(work: Any) -> Any:
        async def hold(*given: Any) -> Any:
            if step != "the protocol door" or given[0].name == "protocol":
                begun.set()
                await go.wait()
            return await work(*given)

        return hold

    of, name = {"the protocol door": (app, "listen"), "the outbox": (app.Outbox, "recover"), "the orders": (app.Pulls, "recover")}[step]
    monkeypatch.setattr(of, name, held(getattr(of, name)))
    at = site(tmp_path / "a", "hospital")
    starting = asyncio.create_task(app.start(at.settings))
    await asyncio.wait_for(begun.wait(), 5)
    async with aiohttp.ClientSession() as http:
        url = f"{at.settings.ops.url}/readyz"
        answer = await call(http, "GET", url)
        assert (answer.status, list(answer.json["faults"])) == (503, ["starting"])
        assert (await call(http, "GET", f"{at.settings.ops.url}/livez")).status == 200
        go.set()
        connector = await starting
        assert ((await call(http, "GET", url)).status, listening(at)) == (200, list(DOORS))
    await connector.close()


@pytest.mark.asyncio
async def test_who_has_lost_its_store_is_alive_but_not_ready(tmp_path: Path):
    async with running(site(tmp_path / "a", "hospital", store="sqlite")) as us:
        await us.connector.store.close()
        answer = await ops(us, "/readyz")
        assert (answer.status, "StoreError" in answer.json["faults"]["store"]) == (503, True)
        assert (await ops(us, "/livez")).status == 200
        refused = await us.manage("GET", "/datasets")
        assert (refused.status, refused.json["type"]) == (503, "urn:qiao:problem:store")


# ---- TLS


def secured(authority: trustme.CA, at: Site) -> Site:
    """The site with a certificate at every door, trusting that authority, and dialling nothing but https."""
    made = authority.issue_cert("localhost", "127.0.0.1")
    files = {"certificate": at.root / "chain.pem", "key": at.root / "key.pem"}
    files["certificate"].write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
    files["key"].write_bytes(made.private_key_pem.bytes())
    authority.cert_pem.write_to_path(at.root / "ca.pem")
    doors = {name: getattr(at.settings, name) for name in DOORS}
    doors = {name: replace(door, url=door.url.replace("http://", "https://"), **files) for name, door in doors.items()}
    return at.changed(**doors, egress=replace(at.settings.egress, http=False, ca_file=at.root / "ca.pem"))


@pytest.mark.asyncio
async def test_two_connectors_negotiate_and_pull_over_tls_at_every_door(tmp_path: Path):
    authority = trustme.CA()
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    one, other = (secured(authority, site(tmp_path / name, name, scheme="https")) for name in ("hospital", "biopharma"))
    one.meet(other)
    content = os.urandom(300_000)
    async with running(one, trust=trust) as provider, running(other, trust=trust) as consumer:
        await provider.publish("urn:test:tls", content=content)
        view = await pulled(consumer, "hospital", "urn:test:tls")
        assert (view["stage"], view["received_bytes"]) == ("done", len(content)), view
        assert (other.root / "out" / "file").read_bytes() == content
        assert (await ops(provider, "/readyz")).status == 200
        for name in DOORS:
            port = provider.connector.ports[name]
            version, shown = await asyncio.to_thread(handshake, port, trust)
            assert version in ("TLSv1.2", "TLSv1.3")
            assert shown
            old = ssl.create_default_context()
            authority.configure_trust(old)
            old.maximum_version = ssl.TLSVersion.TLSv1_2
            assert (await asyncio.to_thread(handshake, port, old))[0] == "TLSv1.2"
            with pytest.raises(ssl.SSLError):
                await asyncio.to_thread(handshake, port, ssl.create_default_context())  # somebody who does not know the authority


def handshake(port: int, context: ssl.SSLContext) -> tuple[str | None, bytes | None]:
    with socket.create_connection(("127.0.0.1", port), 5) as plain, context.wrap_socket(plain, server_hostname="localhost") as secure:
        return secure.version(), secure.getpeercert(binary_form=True)


def mutual(authority: trustme.CA, at: Site) -> Site:
    """A secured site that asks whoever comes to any door for a certificate by that authority, and shows its own to peers."""
    made = secured(authority, at)
    ours = {"certificate": at.root / "chain.pem", "key": at.root / "key.pem"}
    doors = {name: replace(getattr(made.settings, name), client_ca=at.root / "ca.pem") for name in DOORS}
    return made.changed(**doors, egress=replace(made.settings.egress, **ours))


@pytest.mark.asyncio
async def test_a_certificate_opens_a_connection_and_stands_for_no_token(tmp_path: Path):
    authority = trustme.CA()
    stranger, trust = ssl.create_default_context(), ssl.create_default_context()
    for context in (stranger, trust):
        authority.configure_trust(context)
    authority.issue_cert("operator@example.org").configure_cert(trust)
    one, other = (mutual(authority, site(tmp_path / name, name, scheme="https")) for name in ("hospital", "biopharma"))
    one = one.changed(limits=replace(one.settings.limits, bulk_threads=1))
    one.meet(other)
    content = os.urandom(1_500_000)
    async with running(one, trust=trust) as provider, running(other, trust=trust) as consumer:
        await provider.publish("urn:test:mutual", content=content)
        view = await pulled(consumer, "hospital", "urn:test:mutual")
        assert (view["stage"], view["received_bytes"]) == ("done", len(content)), view
        assert (other.root / "out" / "file").read_bytes() == content
        assert [thread.name for thread in threading.enumerate() if thread.name.startswith("bulk")] == ["bulk_0"]
        for door, path in (("management", "/v1/self"), ("protocol", "/dsp/2025-1/catalog/request"), ("data", "/data/urn:uuid:x")):
            url = f"https://localhost:{provider.connector.ports[door]}{path}"
            method = "POST" if door == "protocol" else "GET"
            assert (await call(provider.http, method, url, {} if door == "protocol" else None)).status == 401
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=stranger)) as nobody:
            for door in DOORS:
                with pytest.raises((aiohttp.ClientError, ConnectionError)):
                    await call(nobody, "GET", f"https://localhost:{provider.connector.ports[door]}/livez")


@pytest.mark.asyncio
async def test_a_peer_with_a_certificate_of_somebody_else_is_not_spoken_to(tmp_path: Path):
    known, unknown = trustme.CA(), trustme.CA()
    trust = ssl.create_default_context()
    known.configure_trust(trust)
    one = secured(unknown, site(tmp_path / "hospital", "hospital", scheme="https"))
    other = secured(known, site(tmp_path / "biopharma", "biopharma", scheme="https"))
    one.meet(other)
    async with running(one, trust=False), running(other, trust=trust) as consumer:
        answer = await consumer.manage("POST", "/catalog", {"peer": "hospital"})
        assert (answer.status, answer.json["type"]) == (502, "urn:qiao:problem:peer-failed")
        assert "certificate" in answer.json["detail"].lower()


@pytest.mark.asyncio
async def test_windows_and_credit_are_those_of_the_settings_from_the_start(tmp_path: Path):
    metering = MeteringSettings(window_bytes=4_194_304, credit_windows=3)
    async with pair.pair(tmp_path, provider={"metering": metering}) as two:
        await two.provider.publish("urn:test:windows", content=os.urandom(3_000_000))
        view = await pulled(two.consumer, "hospital", "urn:test:windows")
        assert view["stage"] == "done", view
        account = await two.consumer.connector.store.metered(view["transfer"])
        assert account is not None
        manifest = manifest_of(account.manifest)
        assert (manifest.window_bytes, manifest.credit_windows) == (4_194_304, 3)


@pytest.mark.asyncio
async def test_a_peer_that_wants_a_certificate_of_us_is_named_with_what_it_wants_in_whatever_fails_for_it(tmp_path: Path):
    authority = trustme.CA()
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    authority.issue_cert("operator@example.org").configure_cert(trust)
    one = secured(authority, site(tmp_path / "hospital", "hospital", scheme="https"))
    other = mutual(authority, site(tmp_path / "biopharma", "biopharma", scheme="https"))
    one.meet(other)
    async with running(one, trust=trust) as provider, running(other, trust=trust) as consumer:
        said = f"`{other.settings.protocol.url}` demands a TLS certificate of us, and we have none to show; see `egress.certificate`"
        answer = await provider.manage("POST", "/catalog", {"peer": "biopharma"})
        assert (answer.status, answer.json["detail"]) == (502, said)
        await provider.publish("urn:test:wanted")
        asked = await consumer.asked("POST", "/negotiations", {"peer": "hospital", "dataset": "urn:test:wanted"}, status=201)
        begun = await consumer.until(Kind.NEGOTIATION, asked["pid"], lambda process: process.peer_pid is not None)
        async with asyncio.timeout(10):
            while (view := await provider.asked("GET", f"/negotiations/{begun.peer_pid}"))["last_error"] is None:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.01)
        assert view["last_error"] == said


# ---- a trace on both sides


@pytest.mark.asyncio
async def test_a_trace_crosses_to_the_peer_and_back_and_says_no_secret(tmp_path: Path):
    files = {name: tmp_path / f"{name}.jsonl" for name in ("provider", "consumer")}
    telemetry = {name: TelemetrySettings(sample_ratio=1.0 if name == "consumer" else 0.01, spans_file=file) for name, file in files.items()}
    async with pair.pair(tmp_path / "x", **{name: {"telemetry": each} for name, each in telemetry.items()}) as two:
        await two.provider.publish("urn:test:traced")
        asked = await two.consumer.asked("POST", "/negotiations", {"peer": "hospital", "dataset": "urn:test:traced"}, status=201)
        done = await two.consumer.asked("GET", f"/negotiations/{asked['pid']}?wait=final")
        await two.provider.state(Kind.NEGOTIATION, done["peer_pid"], "FINALIZED")
        told = [(await at.evidence(pid)) for at, pid in ((two.consumer, asked["pid"]), (two.provider, done["peer_pid"]))]
    spans = {name: [json.loads(line) for line in file.read_text().splitlines()] for name, file in files.items()}
    (begun,) = [span for span in spans["consumer"] if span["name"] == "management POST /v1/negotiations"]
    trace = begun["context"]["trace_id"].removeprefix("0x")
    here, there = ([s for s in spans[name] if s["context"]["trace_id"].endswith(trace)] for name in ("consumer", "provider"))
    names = {s["name"] for s in here} | {s["name"] for s in there}
    assert names >= {
        "send ContractRequestMessage",
        "send ContractAgreementMessage",
        "send ContractAgreementVerificationMessage",
        "send ContractNegotiationEventMessage",
        "protocol POST /dsp/2025-1/negotiations/request",
        "protocol POST /dsp/2025-1/negotiations/{pid}/agreement",
    }
    sent = {s["context"]["span_id"] for s in here if s["name"] == "send ContractRequestMessage"}
    assert {s["parent_id"] for s in there if s["name"] == "protocol POST /dsp/2025-1/negotiations/request"} == sent
    assert {row.detail["trace"] for rows in told for row in rows} == {trace}
    written = "".join(file.read_text() for file in files.values())
    assert "Bearer" not in written
    assert "eyJ" not in written
    assert TOKEN not in written


# ---- keys and registry, while it runs


async def spoken_to(consumer: Running) -> int:
    """What the provider says to a call of the consumer."""
    answer = await consumer.manage("POST", "/catalog", {"peer": "hospital"})
    return 200 if answer.status == 200 else 401 if "401" in answer.json["detail"] else answer.status


def kids(at: Site) -> list[str]:
    return [key.kid for key in keys.Keys(at.settings.keys.directory, at.id).public()]


@pytest.mark.asyncio
async def test_old_and_new_keys_overlap_while_both_sides_change_over_without_a_restart(tmp_path: Path):
    async with pair.pair(tmp_path / "x") as two:
        provider, consumer = two.provider, two.consumer
        known = provider.site.settings.registry.directory / "biopharma.jsonld"
        (old,) = kids(consumer.site)
        assert await spoken_to(consumer) == 200
        # the new key is made and told before it signs
        directory = consumer.site.settings.keys.directory
        keys.generate(directory, time.time() + 1)
        await consumer.asked("POST", "/reload")
        assert await spoken_to(consumer) == 401, "a key that the provider has not heard of"
        served = await call(consumer.http, "GET", f"{consumer.site.settings.protocol.url}/.well-known/participant.jsonld")
        known.write_bytes(served.body)
        assert "changed `did:web:biopharma.example`" in (await provider.asked("POST", "/reload"))["changed"]
        assert await spoken_to(consumer) == 200, "the new key"
        new = next(kid for kid in kids(consumer.site) if kid != old)
        # whoever still has the old key only is understood too
        held = (directory / f"{new.partition('#')[2]}.key").rename(tmp_path / "held.key")
        await consumer.asked("POST", "/reload")
        assert await spoken_to(consumer) == 200, "the old key, in the time of both"
        held.rename(directory / f"{new.partition('#')[2]}.key")
        # the old one ends
        keys.retire(directory, old.partition("#")[2], time.time() - 1)
        await consumer.asked("POST", "/reload")
        assert kids(consumer.site) == [new, old]
        served = await call(consumer.http, "GET", f"{consumer.site.settings.protocol.url}/.well-known/participant.jsonld")
        assert {key["@id"]: "notAfter" in key for key in served.json["keys"]} == {new: False, old: True}
        known.write_bytes(served.body)
        await provider.asked("POST", "/reload")
        assert await spoken_to(consumer) == 200


@pytest.mark.asyncio
async def test_who_joins_is_heard_and_who_leaves_is_not_without_a_restart(tmp_path: Path):
    one, other = (site(tmp_path / name, name) for name in ("hospital", "biopharma"))
    one.meet(other)
    known = one.settings.registry.directory / "biopharma.jsonld"
    description = known.read_bytes()
    known.unlink()
    async with running(one) as provider, running(other) as consumer:
        assert await spoken_to(consumer) == 401
        known.write_bytes(description)
        assert (await provider.asked("POST", "/reload"))["changed"] == ["added `did:web:biopharma.example` (`biopharma`)"]
        assert await spoken_to(consumer) == 200
        # a registry with a mistake changes nothing, not even by what is right in it
        (one.settings.registry.directory / "broken.jsonld").write_text("{")
        known.unlink()
        refused = await provider.manage("POST", "/reload")
        assert (refused.status, "broken.jsonld" in str(refused.json["reasons"])) == (422, True)
        assert await spoken_to(consumer) == 200
        (one.settings.registry.directory / "broken.jsonld").unlink()
        assert (await provider.asked("POST", "/reload"))["changed"] == ["removed `did:web:biopharma.example`"]
        assert await spoken_to(consumer) == 401
