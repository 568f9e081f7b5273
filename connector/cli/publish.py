"""`connector publish`, `datasets` and `templates`: a dataset from a manifest, or from a file and policies in any of their forms."""

from __future__ import annotations

import json as stdlib_json
import time
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from connector.cli import policy_text, show
from connector.cli.session import Common, ask
from connector.errors import InvalidRequest, PolicyError

if TYPE_CHECKING:
    from connector.client.management import ManagementClient
    from connector.client.views import Dataset

MANIFESTS = (".toml", ".json")
FORMS: dict[str, Literal["turtle", "text"]] = {".ttl": "turtle", ".txt": "text", ".odrl": "text"}  # by suffix; all else is JSON
ALREADY_OVER = "ALREADY_OVER"  # `connector.odrl.codes.Code`, which takes time to load
LINES_OF_JSON = "application/x-ndjson"
MEDIA_TYPES = {".ndjson": LINES_OF_JSON, ".jsonl": LINES_OF_JSON}  # that no table of a system has; the connector guesses the others


def publish(
    path: Path,
    *,
    id: str | None = None,
    title: str | None = None,
    policy: Annotated[list[Path] | None, Parameter(negative=())] = None,
    manual: Annotated[bool, Parameter(negative=())] = False,
    counter: Literal["auto-counter", "approve"] | None = None,
    envelope: Path | None = None,
    binding: Annotated[bool, Parameter(negative=())] = False,
    description: str | None = None,
    keyword: Annotated[list[str] | None, Parameter(negative=())] = None,
    media_type: str | None = None,
    common: Common | None = None,
) -> None:
    """Publish datasets: those of a manifest, or, with `--id`, one data file under policies. Prints the offers.

    A manifest is TOML or JSON with `id`, `title`, `source`, `policies` and what else `PUT /v1/datasets` takes, or a list
    of such under `datasets`. In it a policy may be the path of one, or a list of templates; paths are relative to the manifest.

    Data that come as they are made have a source of type `http-stream`. If it can go on behind a record (events with ids, lines with
    `since`: the parameter and the member that say where) it is asked again whenever its answer ends; if not, once for each transfer,
    which ends with the answer and says whether that was all.

    A policy is JSON-LD, Turtle if its file is called .ttl, the small text form if it is called .odrl or .txt. A JSON list chooses
    templates (`connector templates`); the choice is kept beside the offer.

    Parameters
    ----------
    path
        manifest (.toml or .json), or the data file if `--id` is given
    id
        id of the dataset: an IRI, or any name
    title
        title for people; default: the name of the file
    policy
        file of the terms; may be given several times, each makes one offer
    manual
        leave each request for the dataset to an operator
    counter
        what becomes of a request for terms that only overlap: `auto-counter` answers with what both have in common (the
        default), `approve` leaves it to an operator
    envelope
        file of the widest terms that are accepted without asking; default: the offer itself
    binding
        the terms count for agreements made before as well: what they do not permit any more ends
    description
        description for people
    keyword
        keyword; may be given several times
    media_type
        media type of the data; default: by the name of the file
    """
    common = common or Common()
    if id is None:
        given = {
            "--title": title,
            "--policy": policy,
            "--manual": manual,
            "--counter": counter,
            "--envelope": envelope,
            "--binding": binding,
            "--description": description,
            "--keyword": keyword,
            "--media-type": media_type,
        }
        if extra := [name for name, value in given.items() if value]:
            raise InvalidRequest(f"what {', '.join(extra)} says of a data file needs `--id`; a manifest says these things itself")
        datasets = read_manifest(path)
    else:
        if not policy:
            raise InvalidRequest("without terms nobody may have the data; give `--policy FILE` with an ODRL policy")
        media_type = media_type or MEDIA_TYPES.get(path.suffix.lower())
        source = {"type": "file", "path": str(path.absolute())} | ({"media_type": media_type} if media_type else {})
        optional = {
            "manual": manual,
            "counter": counter,
            "envelope": read_policy(envelope) if envelope else None,
            "binding": binding,
            "description": description,
            "keywords": keyword,
            "media_type": media_type,
        }
        dataset = {"title": title or path.name, "source": source} | _terms([read_offer(p) for p in policy])
        datasets = [(id, dataset | {name: value for name, value in optional.items() if value})]

    async def work(client: ManagementClient) -> list[Dataset]:
        return [await client.publish(name, dataset) for name, dataset in datasets]

    published = ask(common, work)
    if common.json:
        show.document({"items": published})
        return
    for dataset_view in published:
        show.facts(
            {
                "dataset": dataset_view.id,
                "title": dataset_view.title,
                "size": show.size(dataset_view.size_bytes),
                "sha256": dataset_view.sha256,
            }
        )
        for offer in dataset_view.offers:
            approval = "  (each request waits for approval)" if offer.manual else ""
            show.line(f"offer {offer.id}: {policy_text.labelled(offer.policy)}{approval}")
            for finding in _over(offer.policy):
                show.note(f"warning: {finding['message']}, and nobody is shown what only that permits; {finding['fix']}")


def _over(policy: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The rules of an offer whose time is over."""
    from connector.app_settings import examined

    found = examined(stdlib_json.dumps(policy).encode(), "json-ld", "en", time.time())
    return [finding for finding in (each.to_json() for each in found.findings) if finding["code"] == ALREADY_OVER]


def datasets(
    action: Literal["withdraw"] | None = None,
    id: str | None = None,
    *,
    all: Annotated[bool, Parameter(negative=())] = False,
    common: Common | None = None,
) -> None:
    """List what we have published, or withdraw a dataset.

    `datasets withdraw ID` takes it out of our catalog: nobody can ask for it any more. Agreements stay in force; their transfers are
    suspended until it is published again.

    Parameters
    ----------
    action
        what to do; nothing for the list
    id
        which one, as the list shows it
    all
        every page, not the first only
    """
    common = common or Common()
    if action is not None:
        if id is None:
            raise InvalidRequest("which one? write `datasets withdraw ID`; `connector datasets` shows them")
        ask(common, lambda client: client.withdraw(id))
        if common.json:
            show.document({"withdrawn": id})
            return
        show.line(f"{id} is withdrawn; `connector publish` brings it back")
        return

    async def work(client: ManagementClient) -> tuple[list[Dataset], bool]:
        page = await client.datasets()
        found = [*page.items]
        while all and page.next is not None:
            page = await client.datasets(after=page.next)
            found += page.items
        return found, page.next is not None

    found, more = ask(common, work)
    if common.json:
        show.document({"items": found})
        return
    rows = ((d.id, d.title, show.size(d.size_bytes), " | ".join(policy_text.labelled(o.policy) for o in d.offers)) for d in found)
    show.table(("DATASET", "TITLE", "SIZE", "OFFERS"), rows, "nothing is published")
    if more:
        show.note("there is more; `--all` shows it")


def templates(id: str | None = None, *, lang: Literal["en", "zh"] = "en", common: Common | None = None) -> None:
    """List the policy templates, or show one with its parameters and what it allows and denies.

    A JSON list of `{"template": ID, "parameters": {NAME: VALUE}}` is a policy for `connector publish --policy`, `lint` and `what-if`.

    Parameters
    ----------
    id
        the one to show
    lang
        language of the names
    """
    common = common or Common()
    if id is None:
        listed = ask(common, lambda client: client.templates())
        if common.json:
            show.document({"items": listed})
            return
        rows = [(each.id, each.label[lang], ", ".join(_asked_for(p) for p in each.parameters), each.stands_for) for each in listed]
        show.table(("ID", "NAME", "PARAMETERS", "STANDS FOR"), rows, "no templates")
        return
    wanted = id
    found = ask(common, lambda client: client.template(wanted))
    if common.json:
        show.document(found)
        return
    show.facts({"template": found.id, "name": found.label[lang], "stands for": found.stands_for, "version": found.version})
    for parameter in found.parameters:
        show.line(f"{_asked_for(parameter)}: {parameter['label'][lang]}{_bounds(parameter)}")
    for case in found.cases:
        show.line(f"{case['result']}: {case['say']}", indent=2)


def _asked_for(parameter: Mapping[str, Any]) -> str:
    """The name and type of a parameter, as in `purposes (term ...)`; with a `?` where there is a default."""
    many = " ..." if parameter["many"] else ""
    return f"{parameter['name']}{'' if parameter['required'] else '?'} ({parameter['type']}{many})"


def _bounds(parameter: Mapping[str, Any]) -> str:
    said = {"default": parameter["default"], "at least": parameter["low"], "at most": parameter["high"]}
    texts = [f"{name} {stdlib_json.dumps(value, ensure_ascii=False)}" for name, value in said.items() if value is not None]
    texts += [f"one of {', '.join(map(str, parameter['choices']))}"] if parameter["choices"] else []
    return f" ({'; '.join(texts)})" if texts else ""


def read_manifest(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """The datasets of a manifest as (id, what the API takes). Raises InvalidRequest."""
    if path.suffix not in MANIFESTS:
        raise InvalidRequest(f"`{path}` is no manifest (.toml or .json); to publish it as data give `--id`, `--title` and `--policy`")
    content = _read(path)
    listed = content.get("datasets", [content])
    if not isinstance(listed, list) or not listed or ("datasets" in content and len(content) > 1):
        raise InvalidRequest(f"`{path}` has `datasets` beside other members or not as a list; write one dataset, or only [[datasets]]")
    return [_dataset(entry, path, number) for number, entry in enumerate(listed)]


def _dataset(entry: Any, manifest: Path, number: int) -> tuple[str, dict[str, Any]]:
    if not isinstance(entry, dict) or not isinstance(entry.get("id"), str) or not entry["id"]:
        raise InvalidRequest(f"dataset {number} of `{manifest}` has no `id`; give it an IRI or any name")
    dataset = {name: value for name, value in entry.items() if name != "id"}
    source, policies, media_type = dataset.get("source"), dataset.get("policies"), dataset.get("media_type")
    if isinstance(source, dict):
        path = source.get("path")
        media_type = media_type or (MEDIA_TYPES.get(Path(path).suffix.lower()) if isinstance(path, str) else None)
        typed = {"media_type": media_type} if media_type else {}
        placed = {"path": str(manifest.absolute().parent / path)} if isinstance(path, str) else {}
        dataset["source"] = typed | source | placed
    if isinstance(dataset.get("envelope"), str | list):
        dataset["envelope"] = _said(dataset["envelope"], manifest)[0]
    if isinstance(policies, list):
        made = _terms([_said(policy, manifest) for policy in policies])
        dataset |= made if "templates" not in dataset else {"policies": made["policies"]}
    return entry["id"], dataset


Offer = tuple[Any, Mapping[str, Any] | None]  # the document, and what to keep of the templates that it was made from


def _said(policy: Any, manifest: Path) -> Offer:
    """A policy of a manifest: the path of one, a choice of templates, or the document itself."""
    if isinstance(policy, str):
        return read_offer(manifest.absolute().parent / policy)
    return _made(policy, "json-ld", manifest) if isinstance(policy, list) else (policy, None)


def _terms(offers: list[Offer]) -> dict[str, Any]:
    templates = {"templates": [template for _, template in offers]} if any(template for _, template in offers) else {}
    return {"policies": [document for document, _ in offers]} | templates


def read_policy(path: Path) -> dict[str, Any]:
    """A policy of a file in any form, as JSON-LD of an offer. Raises InvalidRequest, PolicyError."""
    document: dict[str, Any] = read_offer(path)[0]
    return document


def read_offer(path: Path) -> Offer:
    """`read_policy`, and the templates that it was made from."""
    if path.suffix == ".toml":
        raise InvalidRequest(f"`{path}` is TOML; a policy is JSON (.json), Turtle (.ttl) or the text form (.odrl)")
    return _made(read_bytes(path), FORMS.get(path.suffix, "json-ld"), path)


def read_bytes(path: Path) -> bytes:
    """What a file holds. Raises InvalidRequest."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidRequest(f"`{path}` cannot be read: {error.strerror}") from None


def _made(content: bytes | list[Any], form: Literal["json-ld", "turtle", "text"], path: Path) -> Offer:
    from connector.app_settings import published

    try:
        return published(content, form)
    except PolicyError as error:
        raise PolicyError(f"`{path}` cannot be used: {error.message}", error.findings) from None


def _read(path: Path) -> dict[str, Any]:
    try:
        text = read_bytes(path).decode()
        document = tomllib.loads(text) if path.suffix == ".toml" else stdlib_json.loads(text)
    except ValueError as error:  # of the decoder, of TOML or of JSON
        raise InvalidRequest(f"`{path}` is not {path.suffix.removeprefix('.').upper() or 'JSON'}: {error}") from None
    if not isinstance(document, dict):
        raise InvalidRequest(f"`{path}` is not an object; write one dataset as an object")
    return document
