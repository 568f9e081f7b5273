"""`connector simulate`, `what-if` and `lint`: terms before anybody meets them; against connectors that run here."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from connector.client.management import ManagementClient
from connector.dsp.messages import Kind
from tests import pair
from tests.cli.conftest import Command, Operated
from tests.pair import fresh, only_for, purpose_policy, until_policy

BAD = {
    "@type": "Offer",
    "permission": [
        {
            "action": "use",
            "constraint": [
                {"leftOperand": "purpose", "operator": "eq", "rightOperand": "x"},
                {"leftOperand": "odrl:dateTime", "operator": "lt", "rightOperand": "2030-01-01"},
            ],
        }
    ],
}


@pytest.fixture
def policy(tmp_path: Path) -> Any:
    """Writes a policy into a file."""

    def write(document: Any, name: str = "policy.json") -> str:
        path = tmp_path / name
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        return str(path)

    return write


# ---- simulate and what-if


@pytest.mark.asyncio
async def test_the_catalog_is_shown_as_somebody_else_would_see_it(tmp_path: Path, operated: Operated):
    async with pair.pair(tmp_path / "x") as two:
        for dataset, terms in (
            ("urn:s:care", purpose_policy("care")),
            ("urn:s:hidden", only_for("did:web:other.example")),
            ("urn:s:until", until_policy("2030-01-01T00:00:00Z")),
        ):
            await two.provider.publish(dataset, terms)
        await two.provider.publish("urn:s:manual", purpose_policy("care"), manual=True)

        ended = await operated(two.provider, "simulate", "--as", "biopharma", "--at", "2029-01-01", "--purpose", "care")
        assert ended.code == 0, ended.err
        rows = {line.split()[1]: line for line in ended.out.splitlines()[1:]}
        assert rows["urn:s:care"].startswith("?")
        assert "permit" in rows["urn:s:care"]
        assert "needs: purpose is one of 'care' [declared by the other side]" in rows["urn:s:care"]
        assert rows["urn:s:hidden"].startswith("✗")
        assert "CONSTRAINT_UNSATISFIED by /permission/0: Denied: participant <did:web:biopharma.example>" in rows["urn:s:hidden"]
        assert rows["urn:s:until"].startswith("✓")
        assert "2030-01-01 00:00:00Z" in rows["urn:s:until"]
        assert "an operator decides" in rows["urn:s:manual"]
        assert ended.err == "as biopharma at 2029-01-01 00:00:00Z; the next change is at 2030-01-01 00:00:00Z\n"

        refused = await operated(two.provider, "simulate", "--as", "biopharma", "--purpose", "marketing", "--dataset", "urn:s:care")
        assert "? unknown CONSTRAINT_UNKNOWN" in refused.out
        assert "? purpose is one of care; not known, declared by the other side" in refused.out
        assert "a request would be answered\n      ✗ deny CONSTRAINT_UNSATISFIED" in refused.out
        hidden = await operated(two.provider, "simulate", "--as", "biopharma", "--dataset", "urn:s:hidden")
        assert "is hidden" in hidden.out
        assert "✗ participant is one of did:web:other.example; found did:web:biopharma.example (rule /permission/0" in hidden.out
        other = await operated(two.provider, "simulate", "--as", "did:web:other.example", "--claim", "role=x", "--dataset", "urn:s:hidden")
        assert "is shown" in other.out
        assert json.loads((await operated(two.provider, "simulate", "--as", "biopharma", "--json")).out)["pages"][0]["items"]


@pytest.mark.asyncio
async def test_a_long_catalog_comes_in_pages(tmp_path: Path, operated: Operated):
    async with pair.pair(tmp_path / "x") as two:
        for number in range(51):
            await two.provider.publish(f"urn:s:{number:03}")
        first = await operated(two.provider, "simulate", "--as", "biopharma")
        assert (len(first.out.splitlines()), first.err.splitlines()[-1]) == (51, "there is more; `--all` shows it")
        every = await operated(two.provider, "simulate", "--as", "biopharma", "--all")
        assert len(every.out.splitlines()) == 52


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--as", "nobody"), "known are `biopharma`, `hospital`; for somebody who is none yet give `claims`"),
        (("--as", "biopharma", "--at", "soon"), "write it as 2030-12-31T18:00:00Z"),
        (("--as", "biopharma", "--dataset", "urn:none"), "`urn:none` is not published here"),
        (("--claim", "role"), "write it as name=value"),
        ((), "say who"),
    ],
)
async def test_who_or_when_cannot_be_meant_is_said_with_the_remedy(
    tmp_path: Path, operated: Operated, arguments: tuple[str, ...], says: str
):
    async with pair.pair(tmp_path / "x") as two:
        ended = await operated(two.provider, "simulate", *arguments)
        assert (ended.code, ended.out) == (1, "")
        assert says in ended.err


@pytest.mark.asyncio
async def test_who_would_lose_by_other_terms_is_shown_with_the_reason(tmp_path: Path, operated: Operated, policy: Any):
    async with pair.pair(tmp_path / "x") as two:
        dataset = fresh("dataset")
        view = await two.provider.publish(dataset, purpose_policy("care", "research"))
        offer = view["offers"][0]["id"]
        out = str(two.consumer.site.root / "out" / "x")
        body = {"peer": "hospital", "dataset": dataset, "out": out, "purposes": ["care"]}
        order = await two.consumer.asked("POST", "/pulls", body, status=201)
        async with ManagementClient(two.consumer.site.settings.management.url, pair.TOKEN) as client:
            stages = [each.stage async for each in client.follow(order["id"])]
        assert stages[-1] == "done"

        ended = await operated(two.provider, "what-if", policy(purpose_policy("research")), "--offer", offer)
        assert ended.code == 0, ended.err
        assert f"offer {offer}: " in ended.out
        assert "may do less" in ended.out
        assert "may have it for care, research" in ended.out
        assert "Denied: purpose 'care' is not one of 'research'" in ended.out
        assert f"with {two.consumer.site.id} is in force" in ended.out
        assert "the new terms differ: " in ended.out
        assert "published with `--binding`, they would end it: Denied: purpose 'care'" in ended.out
        assert ended.err.startswith("0 keep what they have; agreements go on under their own terms, unless")

        for name, terms in (
            ("p.odrl", "offer\n  permit use\n    for {research}\n"),
            ("t.json", [{"template": "purpose", "parameters": {"purposes": ["research"]}}]),
        ):
            other_form = await operated(two.provider, "what-if", policy(terms, name), "--offer", offer)
            assert "may do less" in other_form.out, other_form.err

        gone = await operated(two.provider, "what-if", policy(only_for("did:web:other.example")), "--dataset", dataset)
        assert "loses access" in gone.out
        assert "does not see it" in gone.out
        same = await operated(two.provider, "what-if", policy(purpose_policy("research", "care")), "--dataset", dataset)
        assert f"offer {offer}: the same terms" in same.out
        assert "nobody loses or gains anything" in same.err
        document = json.loads((await operated(two.provider, "what-if", policy(purpose_policy("research")), "--offer", offer, "--json")).out)
        assert [each["effect"] for each in document["items"]] == ["narrower"]

        refused = await operated(two.provider, "what-if", policy(BAD), "--offer", offer)
        assert (refused.code, "write `odrl:purpose`" in refused.err) == (1, True)
        assert "at /policy/permission/0/constraint/0/leftOperand" in refused.err
        nothing = await operated(two.provider, "what-if", policy(BAD))
        assert (nothing.code, "`--offer` or `--dataset`" in nothing.err) == (1, True)


ENGLISH = re.compile(r"\b(is|was|are|the|not|of|it|to|no|and|or|that|asks|hidden|offer|needs|may|with|keep|at|by|as|change)\b")
NAMES = re.compile(r"`[^`]*`|<[^>]*>|'[^']*'|“[^”]*”|/[\w/~-]+|(?:odrl|urn|did|https?):[\w:./%-]+")


def english(text: str) -> list[str]:
    """The lines of which something is left in English, beside names and values."""
    return [line for line in text.splitlines() if ENGLISH.search(NAMES.sub("", line))]


@pytest.mark.asyncio
async def test_in_chinese_all_of_it_is_chinese_but_names(tmp_path: Path, operated: Operated, policy: Any):
    async with pair.pair(tmp_path / "x") as two:
        view = await two.provider.publish("urn:s:care", purpose_policy("care", "research"))
        await two.provider.publish("urn:s:hidden", only_for("did:web:other.example"))
        await two.provider.publish("urn:s:until", until_policy("2030-01-01T00:00:00Z"))
        as_asked = ("simulate", "--as", "biopharma", "--at", "2029-01-01", "--lang", "zh")
        every = await operated(two.provider, *as_asked, "--purpose", "marketing")
        assert every.code == 0, every.err
        assert english(every.out + every.err) == []
        assert "未满足：用于“care”或“research”；实际为 marketing" in every.out
        assert "CONSTRAINT_UNSATISFIED，依据 /permission/0：拒绝：未满足：" in every.out
        for dataset in ("urn:s:care", "urn:s:hidden"):
            whole = await operated(two.provider, *as_asked, "--dataset", dataset)
            assert english(whole.out + whole.err) == []
        agreed = await two.consumer.asked("POST", "/negotiations", {"peer": "hospital", "dataset": "urn:s:care"}, status=201)
        await two.consumer.state(Kind.NEGOTIATION, agreed["pid"], "FINALIZED")
        offer, file = view["offers"][0]["id"], policy(purpose_policy("research"))
        what_if = await operated(two.provider, "what-if", file, "--offer", offer, "--lang", "zh")
        assert what_if.code == 0, what_if.err
        assert english(what_if.out + what_if.err) == []
        for said in (
            "可做的变少",
            "不再要求",
            "未满足：用途为以下之一：'research'；实际为 'care'",
            "新条款不同：use 的许可要求",
            "0个参与方不受影响",
        ):
            assert said in what_if.out + what_if.err


# ---- lint


def test_a_policy_that_is_in_order_is_said_in_plain_words(command: Command, policy: Any):
    sound = purpose_policy("care") | {"prohibition": [{"action": "odrl:distribute"}], "odrl:conflict": {"@id": "odrl:prohibit"}}
    ended = command("lint", policy(sound))
    assert ended.code == 0
    assert "Anybody may use it for “care”." in ended.out
    assert "/permission/0/constraint/0: for “care” (declared by the other side)" in ended.out
    assert ended.err.endswith("policy.json: nothing to mend\n")
    assert "用于“care”" in command("lint", policy(sound), "--lang", "zh").out
    bad = command("lint", policy(BAD), "--lang", "zh")
    assert english(bad.out) == []
    assert "错误 TERM_DROPPED 位置 /permission/0/constraint/0/leftOperand：" in bad.out.replace(": ", "：")


def test_every_finding_is_listed_with_place_and_remedy_and_an_error_ends_with_1(command: Command, policy: Any):
    ended = command("lint", policy(BAD))
    assert ended.code == 1
    assert ended.out.splitlines()[0].startswith("error TERM_DROPPED at /permission/0/constraint/0/leftOperand: `purpose` is no term")
    assert "write `odrl:purpose`" in ended.out
    assert "warning ZONE_MISSING at /permission/0/constraint/1/rightOperand" in ended.out
    count = sum(line.startswith("warning ") for line in ended.out.splitlines())
    assert ended.err.endswith(f"policy.json: 1 error, {count} warning{'s' if count > 1 else ''}\n")
    document = command("lint", policy(BAD), "--json")
    assert document.code == 1
    read = json.loads(document.out)
    assert read["refused"]
    assert {"TERM_DROPPED", "ZONE_MISSING"} <= {finding["code"] for finding in read["findings"]}


def test_a_warning_alone_is_no_failure(command: Command, policy: Any):
    assert command("lint", policy(until_policy("2030-01-01T00:00:00"))).code == 0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"a": 1, "a": 2}', "stands twice"),
        ("{", "error"),
        ("[]", "MALFORMED at the policy"),
        ("\udcff", ""),
        ('{"permission": []}', "error"),
    ],
)
def test_what_is_no_policy_is_a_finding_or_an_error_and_no_defect(command: Command, tmp_path: Path, text: str, says: str):
    path = tmp_path / "p.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    ended = command("lint", str(path))
    assert ended.code == 1
    assert says in ended.out + ended.err


def test_turtle_is_read_by_the_name_of_the_file(command: Command, policy: Any):
    rule = "odrl:permission [ odrl:action odrl:use ; odrl:target <urn:d> ]"
    text = f"@prefix odrl: <http://www.w3.org/ns/odrl/2/> . <urn:o> a odrl:Set ; {rule} ."
    assert command("lint", policy(text, "policy.ttl")).code == 0
    assert command("lint", policy("nonsense", "policy.ttl")).code == 1


def test_a_file_that_is_not_there_is_said(command: Command):
    ended = command("lint", "none.json")
    assert (ended.code, ended.err) == (1, "connector: `none.json` cannot be read: No such file or directory\n")
