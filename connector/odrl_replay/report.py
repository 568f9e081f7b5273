"""What a log comes to, as values: every event with what it was, every duty and every infringement as it stands at the end."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from connector.odrl import words
from connector.odrl.codes import Code
from connector.odrl.decision import Decision
from connector.odrl.model import DutyState, Event
from connector.values import Value


class Act(Value):
    """One event and what it was: `permitted` or a `violation` by its `decision`, or a `duty`, where `performs` names (by path) what it
    performs; `repeated` is an event that stands in the log already, and counts for nothing.

    `infringes` are the prohibitions (by path) that it infringes. After the agreement was closed there is no decision.
    """

    event: Event
    verdict: Literal["permitted", "violation", "duty", "repeated"]
    decision: Decision | None = None
    performs: tuple[str, ...] = ()
    infringes: tuple[str, ...] = ()

    @property
    def code(self) -> Code | None:
        """Why it was permitted or not; None for what is no use."""
        if self.decision is not None:
            return self.decision.code
        return Code.AGREEMENT_CLOSED if self.verdict == "violation" else None

    def reason(self, level: Literal["peer", "full", "none"] = "full") -> list[str]:
        """Sentences, as `Decision.reason` has them."""
        if self.decision is not None:
            return self.decision.reason(level)
        return ["Denied: the agreement was closed before."] if self.verdict == "violation" and level != "none" else []

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        event = self.event
        document: dict[str, Any] = {
            "at": event.at.isoformat(),
            "action": words.shown(event.action),
            "party": words.shown(event.party, words.SENTENCE_CHARS_MAX),
            "verdict": self.verdict,
        }
        more = {"id": event.id, "target": event.target, "code": self.code}
        document |= {name: words.shown(str(value), words.SENTENCE_CHARS_MAX) for name, value in more.items() if value}
        lists = {"reason": self.reason(), "performs": self.performs, "infringes": self.infringes}
        return document | {name: list(found) for name, found in lists.items() if found}


class Standing(Value):
    """How a duty stands at the end of a log: `deadline` is the instant from which it is overdue, if there is one, and `done` when it was
    performed."""

    path: str
    kind: str
    state: DutyState
    deadline: datetime | None
    done: tuple[datetime, ...]
    id: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        document: dict[str, Any] = {"path": self.path, "kind": self.kind, "state": self.state}
        if self.id:
            document["id"] = words.shown(self.id, words.SENTENCE_CHARS_MAX)
        if self.deadline is not None:
            document["due_by"] = self.deadline.isoformat()
        return document | ({"done": [at.isoformat() for at in self.done]} if self.done else {})


class Infringement(Value):
    """A prohibition (by path) that an event infringed. It is remedied once all of its remedies were performed, and after it: an earlier
    payment does not count (ODRL 2.2 IM, 2.6.5)."""

    path: str
    event: Event
    remedies: tuple[Standing, ...]

    @property
    def remedied(self) -> bool:
        """Whether it is made good."""
        return bool(self.remedies) and all(remedy.state in ("fulfilled", "remediated", "inactive") for remedy in self.remedies)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        remedies = [remedy.to_json() for remedy in self.remedies]
        return {"path": self.path, "at": self.event.at.isoformat(), "remedied": self.remedied, "remedies": remedies}


class Report(Value):
    """What a log comes to: every event in the order of time; every duty of the policy and every infringement as they stand at the instant
    `at` (None if nothing says when that is)."""

    policy_id: str
    at: datetime | None
    closed: bool
    acts: tuple[Act, ...]
    duties: tuple[Standing, ...]
    infringements: tuple[Infringement, ...]

    @property
    def violations(self) -> tuple[Act, ...]:
        """The acts that were not permitted."""
        return tuple(act for act in self.acts if act.verdict == "violation")

    @property
    def compliant(self) -> bool:
        """Whether nothing is left to hold against anybody: no duty is overdue, and each violation is an infringement that was remedied."""
        made_good = all(infringement.remedied for infringement in self.infringements)
        return made_good and all(act.infringes for act in self.violations) and all(duty.state != "overdue" for duty in self.duties)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "policy": words.shown(self.policy_id, words.SENTENCE_CHARS_MAX),
            "at": None if self.at is None else self.at.isoformat(),
            "closed": self.closed,
            "compliant": self.compliant,
            "acts": [act.to_json() for act in self.acts],
            "duties": [duty.to_json() for duty in self.duties],
            "infringements": [infringement.to_json() for infringement in self.infringements],
        }
