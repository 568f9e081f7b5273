"""What a policy means, once more: a walk over the document, written from the ODRL 2.2 information model and nothing of the engine."""

import re
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from functools import cache, partial
from itertools import product

NO, UNKNOWN, YES = 0, 1, 2  # so that `and` is min and `or` is max
MICROSECOND, NEVER = timedelta(microseconds=1), datetime(1, 1, 1, tzinfo=UTC)
ABOVE = {"display": "play", "sell": "transfer", "transfer": None, "use": None}  # every other action is directly below `use`
USAGE, BEFORE, AFTER = ("purpose", "spatial"), {"compensate", "obtainConsent"}, {"delete", "inform"}  # duties before the use and after it
KINDS, COUNTERS = ("and", "or", "xone", "andSequence"), ("count", "payAmount", "payAmount urn:x:EUR", "meteredTime")  # in a unit, if any
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
    if (fact := facts.get(" ".join((name, *of(node, "unit"))))) is None:
        return UNKNOWN
    if name in (*USAGE, "participant", "member"):
        left, right = {fact} if name in USAGE else fact, set(right)
        below, part = (related(world[what]) for what in ("below", "part"))
        sure = {"eq": left == right, "neq": left != right, "isAllOf": right <= left, "isAnyOf": left & right, "isNoneOf": not left & right}
        if operator in ("isA", *sure):
            return YES * bool(sure[operator]) if operator in sure else max(below(one, other) for one in left for other in right)
        return min(max(part(one, other) for other in (right, left)[operator == "hasPart"]) for one in (left, right)[operator == "hasPart"])
    sides = [side(name, fact + Fraction(text(of(node, "status")[0])) if of(node, "status") else fact, value) for value in right]
    sides = [min(0, one) if name == "timeInterval" and "t" not in operator[:2] else one for one in sides]  # it recurs: that long, or longer
    lists = {"isAnyOf": 0 in sides, "isNoneOf": 0 not in sides, "isAllOf": {*sides} == {0}}
    return YES * lists.get(operator, sides[0] in ORDER.get(operator, ()))


def related(steps):
    """Whether one is the other, or below it: no where the steps name both and do not say so, unknown where they do not name both."""
    named = {*steps, *(up for ups in steps.values() for up in ups)}
    return lambda one, other: YES if one == other or other in steps.get(one, ()) else NO if {one, other} <= named else UNKNOWN


def window(leaf):
    """The stretch of time [start, end) that a leaf asks for, None for an open end; (None, None) for what asks for none."""
    if text(leaf.get("leftOperand", "")) != "dateTime" or text(leaf["operator"]) not in ("eq", "lt", "lteq", "gt", "gteq"):
        return None, None
    start, end = stretch(text(of(leaf, "rightOperand")[0]))
    return {"lt": (None, start), "lteq": (None, end), "gt": (end, None), "gteq": (start, None)}.get(text(leaf["operator"]), (start, end))


def in_order(node, facts, world):
    """Instants t1 <= t2 <= ... <= now at which each part held; of all but the time only the present is known."""
    now, at = facts["dateTime"], NEVER
    for part in of(node, "andSequence"):
        if any(window(part)):
            at, end = max(at, window(part)[0] or at), window(part)[1]
            yield YES * (at <= now and (end is None or at < end))
        else:
            yield holds(part, facts | ({"delayPeriod": (at, now)} if at > NEVER else {}), world)
            at = now


def leaves(nodes):
    """The constraints that are no logical ones, however deep they stand."""
    return [one for node in nodes for one in ([node] if "leftOperand" in node else leaves([p for kind in KINDS for p in of(node, kind)]))]


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
    later = asked["stage"] == "negotiation" and unknown <= {*COUNTERS, "elapsedTime", "timeInterval", "delayPeriod"}
    return YES - closed if later else closed


def performs(event, duty, path, chain, world):
    """Whether an act performs a duty of one action; what it is about and who owes it is said by the first in the chain that says it."""
    said = {"target": chain, "assignee": [] if text(of(duty, "action")[0]) == "compensate" else chain}.items()  # anybody may pay
    mine = {name: next((of(one, name) for one in (duty, *some) if of(one, name)), []) for name, some in said}
    ways = parts({"action": of(duty, "action"), **mine}, {}, event, world)
    return event["duty"] in ("", path) and all(any(all(holds(n, event, world) == YES for n in way) for way in some) for some in ways)


def first(duty, rule, policy, gate=False):
    """Whether the use waits for it: by its action (if that is a `gate`), or because somebody else than its users is to shape the data."""
    acts, whom = ({*map(text, of(duty, name))} for name in ("action", "assignee"))
    return gate if acts & BEFORE else acts - AFTER and whom and whom.isdisjoint(map(text, of(rule, "assignee") or of(policy, "assignee")))


def state(duty, path, chain, facts, world):
    """Due while its conditions hold; the end of its time is no condition but its deadline. Of one action and times that all count."""
    nodes, now = of(duty, "constraint"), facts["dateTime"]
    begun = [YES * ((window(node)[0] or NEVER) <= now) if any(window(node)) else holds(node, facts, world) for node in nodes]
    if NO in begun:
        return "inactive"
    end = min((end for _, end in map(window, nodes) if end), default=datetime.max.replace(tzinfo=UTC))
    begin = min((e["dateTime"] for e in world["uses"] or () if "/duty/" in path and text(of(duty, "action")[0]) in AFTER), default=NEVER)
    log = [event for event in world["log"] or () if event["dateTime"] <= now]
    done = [event["dateTime"] for event in log if event["dateTime"] >= begin and performs(event, duty, path, chain, world)]
    if min(done, default=end) < end or now < end:
        return "fulfilled" if min(done, default=end) < end else "pending"
    last, more = [event for event in log if event["dateTime"] >= end], enumerate(of(duty, "consequence"))
    good = [any(performs(event, one, f"{path}/consequence/{n}", (duty, *chain), world) for event in last) for n, one in more]
    return "remediated" if done and good and all(good) else "doubtful" if UNKNOWN in begun else "overdue"


def known(path, act, asked, world):
    """What is known of an act, with what was used up under the rule at `path`; this use counts, too. No log says how long one was."""
    uses, facts = world["uses"], {name: value for name, value in {**world["facts"], **act}.items() if value is not None}
    for name in COUNTERS:
        told = None if uses is None or (uses and name[0] == "m") else sum(e.get(name, name == "count" and e in uses) for e in world["log"])
        if (before := world["used"].get((path, name), world["used"].get(name, told))) is not None:
            facts[name] = before + (name == "count")
    for name, which, none in (("elapsedTime", min, world["now"]), ("timeInterval", max, NEVER)):
        since = world["anchors"].get(name, None if uses is None else which((event["dateTime"] for event in uses), default=none))
        facts |= {name: (since, world["now"])} if since is not None else {}
    return facts | {"dateTime": world["now"], "participant": {asked["party"]}}


def decide(policy, asked, world, conflict="prohibit", strict=True, state=state):
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
            waits = strict and enforced and any(how == "pending" and first(one, rule, policy, gate=True) for how, one in duties)
            open_duties[path] = {how for how, _ in duties} & {"pending", *LATE}
            gates = (LATE.get(how, NO if waits else YES) for how, _ in duties)
            grants[path] = min(judged(rule, policy, asked, facts[path], world, NO), *gates, YES)
        owed = [(world["duties"].get(path) or state(rule, path, (policy,), facts[path], world), rule) for rule, path in rules[2]]
        late = {"overdue" if how == "pending" and any(strict and first(one, r, policy) for r, _ in rules[0]) else how for how, one in owed}
        bars = [] if conflict in ("perm", "permit") else [judged(rule, policy, asked, facts[path], world, YES) for rule, path in no]
        final = min(final, max(grants.values(), default=NO), YES - max(bars, default=NO), *(LATE.get(how, YES) for how in late if enforced))
        owes |= all(open_duties[path] for path, how in grants.items() if how == YES) or not late.isdisjoint({"pending", *LATE})
    return {NO: "deny", UNKNOWN: "unknown" if asked["stage"] == "catalog" else "deny", YES: "permit-with" if owes else "permit"}[final]
