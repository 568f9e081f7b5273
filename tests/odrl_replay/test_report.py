"""What a report says, and how it is stored."""

import json
from datetime import timedelta

from connector.odrl import Event, World, replay
from connector.odrl_replay.report import Act, Infringement, Report, Standing
from tests.odrl.cases import NOW, rule
from tests.odrl_replay.test_replay import HOUR, OBLIGED, A, at, leaf, policy


def report(*events: Event, **more: object) -> Report:
    found = policy(
        rule(duty=[{"action": "odrl:inform", "@id": "urn:duty:tell"}]),
        prohibitions=(rule(action="odrl:distribute", **{"odrl:remedy": [{"action": "odrl:compensate"}]}),),
        obligation=[{**OBLIGED, "action": "odrl:anonymize", "constraint": [leaf("dateTime", "lt", "2026-06-16Z")]}],
    )
    return replay(found, events, world=World(NOW + 2 * HOUR), **more)  # type: ignore[arg-type]


def test_a_report_is_plain_json() -> None:
    found = report(at(0, target="urn:d", id="u"), at(0.5, "inform"), at(1, "distribute"), at(1, "distribute", id="u"))
    document = json.loads(json.dumps(found.to_json()))
    said = "Denied: to `odrl:distribute` is prohibited (offer urn:o1, /prohibition/0)."
    assert document == {
        "policy": "urn:o1",
        "at": "2026-06-15T14:00:00+00:00",
        "closed": False,
        "compliant": False,
        "acts": [
            {
                "at": "2026-06-15T12:00:00+00:00", "action": "use", "party": A, "verdict": "permitted", "id": "u", "target": "urn:d",
                "code": "PERMITTED", "reason": ["Permitted until 2026-06-16T00:00:00Z (offer urn:o1, /permission/0)."],
            },
            {
                "at": "2026-06-15T12:30:00+00:00", "action": "odrl:inform", "party": A, "verdict": "duty",
                "performs": ["/permission/0/duty/0"],
            },
            *(
                {
                    "at": "2026-06-15T13:00:00+00:00", "action": "odrl:distribute", "party": A, "verdict": "violation", **id,
                    "code": "PROHIBITED", "reason": [said], "infringes": ["/prohibition/0"],
                }
                for id in ({}, {"id": "u"})
            ),
        ],
        "duties": [
            {"path": "/obligation/0", "kind": "obligation", "state": "pending", "due_by": "2026-06-16T00:00:00+00:00"},
            {
                "path": "/permission/0/duty/0", "kind": "duty", "state": "fulfilled", "id": "urn:duty:tell",
                "done": ["2026-06-15T12:30:00+00:00"],
            },
        ],
        "infringements": [
            {
                "path": "/prohibition/0", "at": "2026-06-15T13:00:00+00:00", "remedied": False,
                "remedies": [{"path": "/prohibition/0/odrl:remedy/0", "kind": "remedy", "state": "pending"}],
            },
        ] * 2,
    }  # fmt: skip


def test_a_report_is_compliant_if_nothing_is_left_to_hold_against_anybody() -> None:
    assert report(at(0)).compliant, "what is still pending is no breach"
    assert not report(at(0), at(1, "distribute")).compliant
    assert report(at(0), at(1, "distribute"), at(1.5, "compensate")).compliant
    assert not report(at(0), closed_at=NOW + 30 * HOUR).compliant, "the obligation is overdue by then"


def test_who_may_read_the_reasons_of_an_act() -> None:
    refused, duty, closed = report(at(0, "distribute"), at(0, "inform"), at(1), closed_at=NOW + HOUR).acts
    assert [len(refused.reason(level)) for level in ("full", "peer", "none")] == [1, 1, 0]  # type: ignore[arg-type]
    assert (duty.reason(), duty.code) == ([], None)
    assert (closed.reason(), closed.code, closed.reason("none")) == (["Denied: the agreement was closed before."], "AGREEMENT_CLOSED", [])


def test_what_a_log_holds_is_short_and_printable_in_a_report() -> None:
    hostile = Event(NOW, "use\n" * 1_000, "did:web:\0" + "x" * 10_000, "urn:\r\n", id="<script>\n")
    document = Act(hostile, "repeated").to_json()
    assert all(len(value) <= 500 and value.isprintable() for value in document.values())


def test_an_infringement_is_remedied_by_all_of_its_remedies_and_never_by_none() -> None:
    def remedied(*states: str) -> bool:
        remedies = tuple(Standing("/p", "remedy", state, None, ()) for state in states)  # type: ignore[arg-type]
        return Infringement("/prohibition/0", at(0), remedies).remedied

    assert not remedied()
    assert remedied("fulfilled")
    assert remedied("fulfilled", "inactive", "remediated")
    assert not remedied("fulfilled", "pending")
    assert not remedied("overdue")


def test_violations_are_those_acts_that_were_not_permitted() -> None:
    found = report(at(0), at(1, "distribute"), at(2))
    assert [act.event.at - NOW for act in found.violations] == [timedelta(hours=1)]
