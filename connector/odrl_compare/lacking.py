"""Where a second policy lets an act happen only for a duty that the first does not ask for: which act, and what is done there.

One state of the world has to show it. Whatever is done there for the first counts for every permission of the second, so each of these that
speaks of the act has to wait for a duty that is due and that nothing of it does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Final, NamedTuple

from connector.odrl.duties import has_deadline
from connector.odrl.model import Rule
from connector.odrl_compare.boxes import STEPS_MAX, Box, Region, TooComplex, Work
from connector.odrl_compare.covering import covers, idle, in_parts
from connector.odrl_compare.regions import Reader
from connector.odrl_compare.shapes import Grant
from connector.odrl_compare.sides import GAP
from connector.odrl_compare.verdict import NO

PLACES_MAX: Final = 32  # that are looked at for one in which a state of the world shows it
SEARCH_STEPS: Final = STEPS_MAX // 5  # for one search: what else is asked of two policies is answered too

Acts = tuple[tuple[Rule, Box], ...]  # a duty, and an act that performs it


class Lack(NamedTuple):
    """A place in which each permission of the second waits for one of the `missing` duties. `acts` do what the first wants done there, and
    none of `missing`; None if that cannot be."""

    box: Box
    missing: tuple[Rule, ...]
    acts: Acts | None


def shown_by(reader: Reader, places: Callable[[Reader], Iterable[Lack]]) -> Lack | None:
    """The first of some places in which a state of the world shows it, else the first of all; None if there is none. Raises TooComplex if
    none is found within SEARCH_STEPS."""
    work = Work(min(SEARCH_STEPS, reader.work.left), reader.work.leaves)
    work.axes, before, first = reader.work.axes, work.left, None
    try:
        for lack in islice(places(Reader(reader.registry, work, reader.lengths)), PLACES_MAX):
            if lack.acts is not None:
                return lack
            first = first or lack
    except TooComplex:
        if first is None:
            raise
    finally:
        reader.work.left -= before - max(work.left, 0)
    return first


def lacks(reader: Reader, duties: Iterable[Rule], others: Sequence[Grant], box: Box) -> Iterator[Lack]:
    """The places in a box, one after the other, in which `duties` do not do for the permissions of the second, `others`. First come those
    in which less is due and fewer permissions speak. Raises TooComplex."""
    ours = [part for duty in duties for part in in_parts(duty)]
    theirs = [[part for duty in other.rule.duties for part in in_parts(duty)] for other in others]
    for place, due in _places(reader, ours, box):
        for at, missing in _missing(reader, due, others, theirs, place):
            yield Lack(at, missing, acts(reader, due, missing, at))


def undone(reader: Reader, duties: Iterable[Rule], duty: Rule, region: Region) -> Iterator[Lack]:
    """The places in a region in which a duty of the second is due that hangs on none of its permissions, and `duties` are those of the
    first. Raises TooComplex."""
    ours = [part for each in duties for part in in_parts(each)]
    for box in _known(reader, region):
        for left in _known(reader, reader.work.rest(box, idle(reader, duty))):
            for place, due in _places(reader, ours, left):
                yield Lack(place, (duty,), acts(reader, due, (duty,), place))


def acts(reader: Reader, due: Iterable[Rule], missing: Iterable[Rule], box: Box) -> Acts | None:
    """An act for each of the duties that are `due` in a box that performs none of `missing`; None if one for which the use waits has none.
    What comes after the use, or beside it, may be left open where nothing says until when. Raises TooComplex."""
    work, taken = reader.work, [act for duty in missing for act in reader.performing(duty)]
    # Who knows what was done knows what was used: where that is not known, no act is.
    unknown = any(side is GAP and (row := work.axes[key].row) is not None and row.kind == "counter" for key, side in box.items())
    found = []
    for duty in due:
        ways = () if unknown else work.without(reader.performing(duty), taken)
        way = next((way for way in ways if not work.guessed(way)), None)
        if way is not None:
            found.append((duty, way))
        elif (duty.kind == "duty" and duty.when == "pre") or has_deadline(duty):
            return None
    return tuple(found)


def _places(reader: Reader, duties: Sequence[Rule], box: Box) -> Iterator[tuple[Box, tuple[Rule, ...]]]:
    """Parts of a box in which the same duties are due, and these."""
    waiting: list[tuple[Box, int, tuple[Rule, ...]]] = [(box, 0, ())]
    while waiting:
        piece, at, due = waiting.pop()
        if at == len(duties):
            yield piece, due
            continue
        duty = duties[at]
        away = idle(reader, duty)
        waiting += [(left, at + 1, (*due, duty)) for left in _known(reader, reader.work.rest(piece, away))]
        waiting += [(left, at + 1, due) for left in _within(reader, piece, away)]


def _missing(
    reader: Reader, due: Sequence[Rule], others: Sequence[Grant], duties: Sequence[Sequence[Rule]], box: Box
) -> Iterator[tuple[Box, tuple[Rule, ...]]]:
    """Parts of a box in which every permission of the second that speaks waits for a duty, and one such duty of each."""
    waiting: list[tuple[Box, int, tuple[Rule, ...]]] = [(box, 0, ())]
    while waiting:
        piece, at, missing = waiting.pop()
        if at == len(others):
            if missing:
                yield piece, missing
            continue
        for inside in reversed(_within(reader, piece, others[at].region)):
            for duty in reversed(duties[at]):
                if all(covers(reader, mine, duty, conditions=False) == NO for mine in due):
                    left = _known(reader, reader.work.rest(inside, idle(reader, duty)))
                    waiting += [(each, at + 1, (*missing, duty)) for each in left]
        waiting += [(left, at + 1, missing) for left in _known(reader, reader.work.rest(piece, others[at].region))]


def _within(reader: Reader, box: Box, region: Region) -> Region:
    return _known(reader, [meet for other in region if (meet := reader.work.meet(box, other)) is not None])


def _known(reader: Reader, boxes: Iterable[Box]) -> Region:
    """Those in which a request surely lies."""
    return [box for box in boxes if not reader.work.guessed(box)]
