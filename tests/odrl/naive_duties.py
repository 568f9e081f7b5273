"""How a duty stands, once more, with all that it can say of its time: deadlines in alternatives, lists of instants, durations from the
first use; and with several actions and targets, each of which has to be done. It stands in for the simpler `state` of `tests.odrl.naive`.
"""

from datetime import UTC, datetime

from tests.odrl.naive import AFTER, BEFORE, KINDS, MICROSECOND, NEVER, NO, UNKNOWN, YES, holds, later, of, performs, text, window

TIMES = ("dateTime", "elapsedTime")


def spread(node):
    """A list of times as alternatives, or as what holds together."""
    kind = {"isAnyOf": "or", "isAllOf": "and"}.get(text(node.get("operator", "")))
    if kind is None or text(node["leftOperand"]) not in TIMES:
        return node
    return {kind: [{**node, "operator": "eq", "rightOperand": value} for value in of(node, "rightOperand")]}


def timed(node):
    """Whether it says from when on or until when something is to be done."""
    node = spread(node)
    if "leftOperand" in node:
        return text(node["leftOperand"]) in TIMES and text(node["operator"]) in ("eq", "lt", "lteq", "gt", "gteq")
    return any(timed(part) for kind in KINDS for part in of(node, kind))


def limits(leaf, world):
    """From when on and until when a leaf lets something be done, None for an open end or one that nobody knows."""
    if text(leaf["leftOperand"]) == "dateTime":
        return window(leaf)
    since = world["anchors"].get("elapsedTime") or min((event["dateTime"] for event in world["uses"] or ()), default=None)
    if since is None:
        return None, None
    at, operator = later(since, text(of(leaf, "rightOperand")[0])), text(leaf["operator"])
    start = {"eq": at, "gteq": at, "gt": at + MICROSECOND}.get(operator)
    return start, {"eq": at + MICROSECOND, "lteq": at + MICROSECOND, "lt": at}.get(operator)


def due(node, facts, world, ever=False):
    """Whether a constraint of a duty holds, whose end of time does not count; nor, if it is asked for any time, does its beginning."""
    node = spread(node)
    if not timed(node):
        return holds(node, facts, world)
    if "leftOperand" not in node:
        kind = next(kind for kind in KINDS if kind in node)
        return (max if kind in ("or", "xone") else min)(due(part, facts, world, ever) for part in of(node, kind))
    start, operator = limits(node, world)[0], text(node["operator"])
    if ever or operator in ("lt", "lteq"):
        return YES
    return YES * (start <= facts["dateTime"]) if start else UNKNOWN if operator == "eq" else holds(node, facts, world)


def until(node, facts, world):
    """The deadline that a constraint of a duty sets: the earliest of its parts, of alternatives the latest, if none is open."""
    node = spread(node)
    if "leftOperand" in node:
        return limits(node, world)[1] if timed(node) else None
    kind = next(kind for kind in KINDS if kind in node)
    if kind in ("or", "xone"):
        ends = [until(part, facts, world) for part in of(node, kind) if due(part, facts, world, ever=True) != NO]
        return None if None in ends else max(ends, default=None)
    return min((end for part in of(node, kind) if (end := until(part, facts, world))), default=None)


def when(duty):
    """Whether it comes before the use, after it, or with it."""
    actions = {text(action) for action in of(duty, "action")}
    return "before" if actions & {*BEFORE} else "after" if actions <= {*AFTER} else "with"


def state(duty, path, chain, facts, world):
    """Due while its conditions hold; the end of its time is no condition but the deadline up to which each part of it has to be done."""
    nodes, now = of(duty, "constraint"), facts["dateTime"]
    begun = [due(node, facts, world) for node in nodes]
    if NO in begun:
        return "inactive"
    end = until({"and": nodes}, facts, world) or datetime.max.replace(tzinfo=UTC)
    after = when(duty) == "after" and "/duty/" in path
    begin = min((event["dateTime"] for event in world["uses"] or ()), default=NEVER) if after else NEVER
    log = [event for event in world["log"] or () if event["dateTime"] <= now]

    def done(one, at, above, first):
        each = [{**one, "action": [a], "target": [t] if t else []} for a in of(one, "action") for t in of(one, "target") or [None]]
        return [[e["dateTime"] for e in log if e["dateTime"] >= first and performs(e, part, at, above, world)] for part in each]

    times = done(duty, path, chain, begin)
    if all(min(one, default=end) < end for one in times) or now < end:
        return "fulfilled" if all(min(one, default=end) < end for one in times) else "pending"
    more = [(one, f"{path}/consequence/{n}") for n, one in enumerate(of(duty, "consequence"))]
    good = [all(done(one, at, (duty, *chain), end)) for one, at in more]
    return "remediated" if all(times) and good and all(good) else "doubtful" if UNKNOWN in begun else "overdue"
