"""Our schemas say yes and no where the official ones do, whoever validates: by example, by mutation, by every keyword."""

import copy
from collections import Counter
from collections.abc import Iterator
from itertools import cycle, islice
from random import Random
from typing import Any
from urllib.parse import urljoin

import pytest

from connector.dsp import schemas
from connector.dsp.schemas import BASE, SCHEMA_OF, Schemas
from connector.vocabulary import read_vocabulary
from tests.vocab.corpus import (
    APPLICATORS,
    ASSERTIONS,
    Fault,
    broken,
    examples,
    faults,
    gently_changed,
    mutations,
    official_schemas,
    oracle,
    reachable,
    seeds,
    validators,
)

MESSAGES_OF_A_SHAPE = 350  # besides every single fault of a shape
MESSAGES_AT_LEAST = 20_000
VALID_AT_LEAST = 0.3
VIOLATIONS_AT_LEAST = 50
TRIES_AT_MOST = 500  # for one keyword
SECOND_OPINION_EVERY = 10  # our schemas under the slow validator, for each tenth message

# What our schemas say for their reader, although the verdict would be the same without: elsewhere a keyword that holds only
# of objects (`required` under `oneOf` or `not`) refuses the rest, and the abstract message is used by its definition alone.
SAID_TWICE = {
    ("catalog/catalog-schema.json", "definitions", "Catalog", "type"),
    ("negotiation/contract-offer-message-schema.json", "type"),
    ("negotiation/contract-request-message-schema.json", "type"),
    ("transfer/transfer-schema.json", "$ref"),
}

OURS = read_vocabulary().schemas
FOLDERS = ("catalog", "common", "negotiation", "transfer")
EXAMPLES = list(examples())


@pytest.fixture(scope="module")
def fast() -> Schemas:
    return Schemas(OURS)


def official_errors(shape: str, document: Any) -> list[Any]:
    """What the official schema says, less deviation 1 of vocab/README.md: the path pattern is not meant for a DataService."""
    errors = list(oracle()[shape].iter_errors(document))
    if shape == "DidService" and isinstance(document, dict) and document.get("type") == "DataService":
        errors = [error for error in errors if error.validator != "pattern"]
    return errors


def test_there_is_a_schema_of_ours_for_each_official_one_under_its_id():
    assert OURS.keys() == official_schemas().keys()
    assert all(document["$schema"] == official_schemas()[id_]["$schema"] for id_, document in OURS.items())


def test_every_official_message_schema_has_its_shape():
    files = {place.partition("#")[0] for place in SCHEMA_OF.values()}
    parts_of_others = {"common/context-schema.json", "transfer/transfer-schema.json"}
    assert {id_.removeprefix(BASE) for id_ in official_schemas()} == files | parts_of_others


@pytest.mark.parametrize(("shape", "document"), [(s, d) for _, s, d in EXAMPLES], ids=[file for file, _, _ in EXAMPLES])
def test_an_official_example_is_valid_here_as_there(fast: Schemas, shape: str, document: Any):
    assert official_errors(shape, document) == []
    assert fast.is_valid(shape, document)
    assert validators(dict(OURS))[shape].is_valid(document)


def test_the_one_deviation_is_what_the_official_example_of_a_data_service_needs(fast: Schemas):
    service = next(document for file, _, document in EXAMPLES if file == "common/example/dataservice-did-service.json")
    assert not oracle()["DidService"].is_valid(service)
    assert fast.is_valid("DidService", service)
    assert not fast.is_valid("DidService", service | {"type": "CatalogService"})
    assert fast.is_valid("DidService", service | {"type": "CatalogService", "serviceEndpoint": "https://p.test/catalog"})


class Campaign:
    """Compares the verdicts on one message after the other, and counts which official keywords said no."""

    def __init__(self, fast: Schemas) -> None:
        self.fast, self.slow = fast, validators(dict(OURS))
        self.messages = self.valid = 0
        self.violations: Counter[tuple[str, str, str]] = Counter()

    def compare(self, shape: str, document: Any) -> set[tuple[str, str, str]]:
        errors = official_errors(shape, document)
        assert self.fast.is_valid(shape, document) is (not errors), (shape, document, errors)
        if self.messages % SECOND_OPINION_EVERY == 0:
            assert self.slow[shape].is_valid(document) is (not errors), (shape, document, errors)
        said_no = {place for error in errors for place in broken(error)}
        self.messages += 1
        self.valid += not errors
        self.violations.update(said_no)
        return said_no


def single_faults(shape: str) -> list[tuple[Any, Fault]]:
    """Every single fault of a shape once, on the smallest seed that has its place."""
    found: dict[tuple[Any, ...], tuple[Any, Fault]] = {}
    skipped = () if shape == "Agreement" else ("permission", "prohibition", "obligation")  # one shape is enough for the rules
    for seed in sorted(seeds()[shape], key=lambda document: len(str(document))):
        for fault in faults(seed):
            if any(part in skipped for part in fault.path[:-1]):
                continue
            where = tuple("*" if isinstance(part, int) else part for part in fault.path)
            found.setdefault((fault.kind, where, fault.name, repr(fault.value)), (seed, fault))
    return list(found.values())


@pytest.mark.slow
@pytest.mark.parametrize("folder", FOLDERS)
def test_our_verdict_on_mutated_messages_is_the_official_one(fast: Schemas, folder: str):
    campaign = Campaign(fast)
    shapes = [shape for shape, place in SCHEMA_OF.items() if place.startswith(folder)]
    for shape in shapes:
        for document in mutations(shape, MESSAGES_OF_A_SHAPE):
            campaign.compare(shape, document)
    assert campaign.messages == MESSAGES_OF_A_SHAPE * len(shapes)
    assert campaign.valid > campaign.messages / 2

    # every single fault once, to learn which keywords it breaks ...
    breakers: dict[tuple[str, str, str], list[tuple[str, Any, Fault]]] = {}
    for shape in shapes:
        for seed, fault in single_faults(shape):
            for place in campaign.compare(shape, fault.apply(copy.deepcopy(seed))):
                breakers.setdefault(place, []).append((shape, seed, fault))
    # ... then those again, in changed surroundings, whose keyword has not yet said no often enough
    rng = Random(folder)
    places = {place for shape in shapes for place in reachable(shape) if place[0].startswith(folder)}
    for place in sorted(places):
        tries = cycle(breakers.get(place, ()))
        for shape, seed, fault in islice(tries, TRIES_AT_MOST):
            if campaign.violations[place] >= VIOLATIONS_AT_LEAST:
                break
            changed = gently_changed(seed, rng)
            if fault.fits(changed):
                campaign.compare(shape, fault.apply(changed))

    assert {place: campaign.violations[place] for place in places if campaign.violations[place] < VIOLATIONS_AT_LEAST} == {}
    assert all(campaign.violations["", "", keyword] >= VIOLATIONS_AT_LEAST for keyword in APPLICATORS)
    assert campaign.valid >= VALID_AT_LEAST * campaign.messages


def test_the_campaigns_are_large_enough_and_meet_every_keyword_of_the_official_schemas():
    assert sum(MESSAGES_OF_A_SHAPE + len(single_faults(shape)) for shape in SCHEMA_OF) >= MESSAGES_AT_LEAST
    met = {place for shape in SCHEMA_OF for place in reachable(shape)}
    assert {keyword for _, _, keyword in met} == ASSERTIONS
    assert {file for file, _, _ in met} == {id_.removeprefix(BASE) for id_ in official_schemas()}


def keywords(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of each keyword, and of each name in a list, that a schema of ours could do without."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if (not path and key.startswith("$") and key != "$ref") or key == "title":
                continue
            if not path or path[-1] not in ("properties", "definitions"):
                yield (*path, key)
            yield from keywords(inner, (*path, key))
    elif isinstance(value, list) and path[-1] in ("required", "enum", "oneOf", "anyOf"):
        for index, inner in enumerate(value):
            yield (*path, index)
            yield from keywords(inner, (*path, index))


def files_of(shape: str) -> set[str]:
    """The schemas of ours that a shape is made of."""
    found, left = set[str](), [BASE + SCHEMA_OF[shape].partition("#")[0]]
    while left:
        if (id_ := left.pop()) not in found:
            found.add(id_)
            left += [urljoin(id_, reference).partition("#")[0] for reference in references(OURS[id_])]
    return found


def references(value: Any) -> Iterator[str]:
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from [inner] if key == "$ref" else references(inner)


@pytest.mark.slow
def test_no_keyword_of_ours_could_be_lost_without_a_difference(fast: Schemas, monkeypatch: pytest.MonkeyPatch):
    verdicts: dict[str, list[tuple[Any, bool]]] = {}
    for shape in SCHEMA_OF:
        probes = [*seeds()[shape], *(fault.apply(copy.deepcopy(seed)) for seed, fault in single_faults(shape))]
        verdicts[shape] = [(probe, fast.is_valid(shape, probe)) for probe in probes]
    unnoticed = []
    for id_, document in OURS.items():
        by_it = {shape: place for shape, place in SCHEMA_OF.items() if id_ in files_of(shape)}
        monkeypatch.setattr(schemas, "SCHEMA_OF", by_it)  # the others are not compiled again for each keyword that is none of theirs
        for path in keywords(document):
            poorer = copy.deepcopy(dict(document))
            holder: Any = poorer
            for part in path[:-1]:
                holder = holder[part]
            del holder[path[-1]]
            try:
                without = Schemas({**OURS, id_: poorer})
            except ValueError:
                continue  # no longer a schema
            if all(without.is_valid(shape, probe) is verdict for shape in by_it for probe, verdict in verdicts[shape]):
                unnoticed.append((id_.removeprefix(BASE), *path))
    assert set(unnoticed) == SAID_TWICE
