"""What a policy means, once more: a walk over the document, written from the ODRL 2.2 information model and nothing of the engine.

`asked` has party, action, target, stage, and the values of the act by the bare name of their operand. `world` has `now`, `facts` by name,
`used` by operand or (path of a rule, operand), `anchors`, a `log` of acts (None: nobody keeps one) and the `uses` among them, the states of
`duties`, the `collections` of things, and what concepts lie `below`, what places are `part` of.
"""

import re
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from functools import cache, partial
from itertools import product

NO, UNKNOWN, YES = 0, 1, 2  # so that `and` is min and `or` is max
MICROSECOND, NEVER = timedelta(microseconds=1), datetime(1, 1, 1, tzinfo=UTC)
ABOVE = {"display": "play", "sell": "transfer", "transfer": None, "use": None}  # every other action is directly below `use`
USAGE, BEFORE, AFTER = ("purpose", "spatial"), ("compensate", "obtainConsent"), ("delete", "inform")  # duties before the use and after it
TIMES = ("dateTime", "elapsedTime")
KINDS, COUNTERS = ("and", "or", "xone", "andSequence"), ("count", "payAmount", "payAmount urn:x:EUR", "meteredTime")  # in a unit, if any
METERED = {*COUNTERS, "elapsedTime", "timeInterval", "delayPeriod"}  # not before the agreement
ORDER = {"eq": (0,), "lt": (-1,), "lteq": (-1, 0), "gt": (1,), "gteq": (0, 1), "neq": (-1, 1)}  # where a value may lie to the right operand
LATE = {"overdue": NO, "doubtful": UNKNOWN}  # what is late and may be no duty at all leaves it open
bare = cache(partial(re.compile("^(odrl:|http://www.w3.org/ns/odrl/2/|urn:qiao:|https://example.org/ns#)").sub, ""))


def of(node, name):
    """The values of a property, always as a list."""
    found = node.get(name) or node.get(f"odrl:{name}") or []
    found = found.get("@list", found) if isinstance(found, dict) else found
    return found if isinstance(found, list) else [found]


def text(value):
    """What a value, a thing or an action is called."""
    while isinstance(value, dict):
        value = next(value[key] for key in ("@id", "@value", "rdf:value", "source", "odrl:source") if key in value)
    return bare(str(value))


@cache
def stretch(written):
    """From a day or an instant to what is behind it."""
    start = datetime.fromisoformat(written if "T" in written else f"{written[:10]}T00:00Z")
    return start, start + (MICROSECOND if "T" in written else timedelta(days=1))


def later(start, written):
    """The instant a duration after another, by the calendar."""
    months, days, hours = (int(n or 0) for n in re.fullmatch(r"P(?:(\d+)M)?(?:(\d+)D)?(?:T(\d+)H)?", written).groups())
    year, month = divmod(start.year * 12 + start.month - 1 + months, 12)
    return start.replace(year=year, month=month + 1) + timedelta(days=days, hours=hours)


def side(name, fact, written):
    """Where a value lies to a right operand: before it (-1), on it (0), behind it (1)."""
    if name == "dateTime":
        return (fact >= stretch(written)[1]) - (fact < stretch(written)[0])
    if isinstance(fact, tuple):
        return (fact[1] > later(fact[0], written)) - (fact[1] < later(fact[0], written))
    right = (later(NEVER, written) - NEVER) // MICROSECOND if name == "meteredTime" else Fraction(written)
    return (fact > right) - (fact < right)


def holds(node, facts, world):
    """Whether a constraint is satisfied."""
    if "leftOperand" not in node:
        kind = next(kind for kind in KINDS if kind in node)
        states = list(in_order(node, facts, world)) if kind == "andSequence" else [holds(part, facts, world) for part in of(node, kind)]
        if kind == "xone":
            return NO if states.count(YES) > 1 else UNKNOWN if UNKNOWN in states else max(states)
        return max(states) if kind == "or" else min(states, default=YES)
    name, operator, right = text(node["leftOperand"]), text(node["operator"]), [text(value) for value in of(node, "rightOperand")]
    fact = facts.get(" ".join((name, *of(node, "unit"))))
    if fact is None:
        return UNKNOWN
    if name in (*USAGE, "participant", "member"):
        left, right = {fact} if name in USAGE else fact, set(right)
        below, part = (related(world[what]) for what in ("below", "part"))
        if operator in ("isA", "isPartOf", "hasPart"):
            return {
                "isA": max(below(one, other) for one in left for other in right),
                "isPartOf": min(max(part(one, other) for other in right) for one in left),
                "hasPart": min(max(part(other, one) for one in left) for other in right),
            }[operator]
        return YES * {
            "eq": left == right, "neq": left != right, "isAllOf": right <= left, "isNoneOf": not left & right,
            "isAnyOf": bool(left & right),
        }[operator]  # fmt: skip
    sides = [side(name, fact + Fraction(text(of(node, "status")[0])) if of(node, "status") else fact, value) for value in right]
    if name == "timeInterval" and "t" not in operator[:2]:  # it recurs: whatever is that long after the last time, or longer
        sides = [min(0, one) for one in sides]
    lists = {"isAnyOf": 0 in sides, "isNoneOf": 0 not in sides, "isAllOf": {*sides} == {0}}
    return YES * lists.get(operator, sides[0] in ORDER.get(operator, ()))


def related(steps):
    """Whether one is the other, or below it: no where the steps name both and do not say so, unknown where they do not name both."""
    named = {*steps, *(up for ups in steps.values() for up in ups)}
    return lambda one, other: YES if one == other or other in steps.get(one, ()) else NO if {one, other} <= named else UNKNOWN


def window(leaf):
    """The stretch of time [start, end) that a leaf asks for, None for an open end; (None, None) for what asks for none."""
    operator = text(leaf["operator"]) if text(leaf.get("leftOperand", "")) == "dateTime" else "neq"
    if operator in ("neq", "isAnyOf", "isNoneOf"):
        return None, None
    starts, ends = zip(*(stretch(text(value)) for value in of(leaf, "rightOperand")), strict=True)
    start, end = max(starts), min(ends)
    return {"lt": (None, start), "lteq": (None, end), "gt": (end, None), "gteq": (start, None)}.get(operator, (start, end))


def in_order(node, facts, world):
    """Instants t1 <= t2 <= ... <= now at which each part held; of all but the time only the present is known."""
    now, at = facts["dateTime"], NEVER
    for part in of(node, "andSequence"):
        if any(window(part)) and text(part["operator"]) != "isAllOf":
            at, end = max(at, window(part)[0] or at), window(part)[1]
            yield YES * (at <= now and (end is None or at < end))
        else:
            yield holds(part, facts | ({"delayPeriod": (at, now)} if at > NEVER else {}), world)
            at = now


def leaves(nodes, kinds=KINDS):
    """The constraints that stand in logical ones of these kinds, or in none."""
    inner = [(node, next((kind for kind in kinds if kind in node), None)) for node in nodes]
    return [leaf for node, kind in inner for leaf in ([node] if kind is None else leaves(of(node, kind), kinds))]


def parts(rule, policy, act, world):
    """What a rule is about (its action, target, party), each as the refinements of those alternatives that an act falls under."""
    found = []
    for name in ("action", "target", "assignee"):
        own = act["party" if name == "assignee" else name]
        here, mine = {own, *world["collections"].get(own, ())}, of(rule, name) or of(policy, name)
        while name == "action" and (own := ABOVE.get(own, "use")):
            here.add(own)
        found += [[of(one, "refinement") if isinstance(one, dict) else [] for one in mine if text(one) in here]] * bool(mine)
    return found


def judged(rule, policy, asked, facts, world, closed):
    """Whether a rule is satisfied. Beyond the catalog what could be known by now and is not makes it `closed`; counters are known later."""
    nodes = [*of(rule, "constraint"), *of(policy, "constraint")]
    nodes += [{"or": [{"and": way} for way in ways]} for ways in parts(rule, policy, asked, world)]
    if (found := min(holds(node, facts, world) for node in nodes)) != UNKNOWN or asked["stage"] == "catalog":
        return found
    unknown = {text(leaf["leftOperand"]) for leaf in leaves(nodes) if holds(leaf, facts, world) == UNKNOWN}
    return YES - closed if asked["stage"] == "negotiation" and unknown <= METERED else closed


def performs(event, duty, path, chain, world):
    """Whether an act performs a duty of one action; what it is about and who owes it is said by the first in the chain that says it."""
    mine = {name: next((of(one, name) for one in (duty, *chain) if of(one, name)), []) for name in ("target", "assignee")}
    if not of(duty, "assignee") and text(of(duty, "action")[0]) == "compensate":
        mine["assignee"] = []  # anybody may pay
    ways = parts({"action": of(duty, "action"), **mine}, {}, event, world)
    fits = [any(all(holds(node, event, world) == YES for node in way) for way in some) for some in ways]
    return event["duty"] in ("", path) and all(fits)


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


def known(path, act, asked, world):
    """What is known of an act, with what was used up under the rule at `path`; this use counts, too."""
    uses, facts = world["uses"], {name: value for name, value in {**world["facts"], **act}.items() if value is not None}
    for name in COUNTERS:
        counted = None if uses is None or (uses and name == "meteredTime") else len(uses) * (name == "count")
        if (before := world["used"].get((path, name), world["used"].get(name, counted))) is not None:
            facts[name] = before + (name == "count")
    for name, which, none in (("elapsedTime", min, world["now"]), ("timeInterval", max, NEVER)):
        since = None if uses is None else which((event["dateTime"] for event in uses), default=none)
        if (since := world["anchors"].get(name, since)) is not None:
            facts[name] = (since, world["now"])
    return facts | {"dateTime": world["now"], "participant": {asked["party"]}}


def decide(policy, asked, world, conflict="prohibit", strict=True):
    """permit, permit-with, deny or unknown; `conflict` says who wins where the policy does not: `prohibit` or `permit`."""
    rules = [[(rule, f"/{kind}/{n}") for n, rule in enumerate(of(policy, kind))] for kind in ("permission", "prohibition", "obligation")]
    yes, no = ([(rule, path) for rule, path in some if all(parts(rule, policy, asked, world))] for some in rules[:2])
    conflict = text((of(policy, "conflict") or [conflict])[0])
    final, owes, enforced = YES if yes else NO, False, asked["stage"] not in ("catalog", "negotiation")
    for values in product(*(set(asked.get(name, ())) or {None} for name in USAGE)):
        facts = {path: known(path, dict(zip(USAGE, values, strict=True)), asked, world) for _, path in yes + no + rules[2]}
        grants, open_duties = {}, {}
        for rule, path in yes:
            at = [(f"{path}/duty/{n}", one) for n, one in enumerate(of(rule, "duty"))]
            duties = [(world["duties"].get(name) or state(one, name, (rule, policy), facts[path], world), one) for name, one in at]
            waits = strict and enforced and any(how == "pending" and when(one) == "before" for how, one in duties)
            open_duties[path] = {how for how, _ in duties} & {"pending", *LATE}
            gates = (LATE.get(how, NO if waits else YES) for how, _ in duties)
            grants[path] = min([judged(rule, policy, asked, facts[path], world, NO), *gates])
        late = {world["duties"].get(path) or state(rule, path, (policy,), facts[path], world) for rule, path in rules[2]}
        bars = [] if conflict in ("perm", "permit") else [judged(rule, policy, asked, facts[path], world, YES) for rule, path in no]
        final = min(final, max(grants.values(), default=NO), YES - max(bars, default=NO), *(LATE.get(how, YES) for how in late if enforced))
        owes |= all(open_duties[path] for path, how in grants.items() if how == YES) or not late.isdisjoint({"pending", *LATE})
    return {NO: "deny", UNKNOWN: "unknown" if asked["stage"] == "catalog" else "deny", YES: "permit-with" if owes else "permit"}[final]
