"""Policies at the management listener before anybody publishes them: the templates that a form chooses from, and what a policy in any form
comes to. Nothing is written."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import orjson
from aiohttp import web

from connector.api.management_shapes import Body, answer, decode
from connector.api.middleware import Handler, Limits, read_body
from connector.api_management.doors import Doors
from connector.errors import InvalidRequest, NotFound
from connector.odrl.model import Number
from connector.odrl.registry import Label
from connector.odrl_forms.drafts import Form
from connector.odrl_forms.locale_forms import Language
from connector.odrl_forms.parameters import Parameter
from connector.odrl_forms.template_files import Template
from connector.odrl_reading.reading import nearest

FORMS: Mapping[str, Form] = {"document": "json-ld", "text": "text", "turtle": "turtle", "templates": "templates"}


class Policy(Body):
    """POST /v1/policies. One of these: `document` is JSON-LD, `templates` a choice as `GET /v1/datasets` shows it beside an offer."""

    document: dict[str, Any] | None = None
    templates: list[Any] | None = None
    text: str | None = None
    turtle: str | None = None
    lang: Language = "en"


def routes(doors: Doors, limits: Limits) -> tuple[tuple[str, str, Handler], ...]:
    """Method, path and handler of each call."""
    api = _Policies(doors, limits)
    return (
        ("GET", "/templates", api.templates),
        ("GET", "/templates/{id}", api.template),
        ("POST", "/policies", api.policy),
    )


class _Policies:
    def __init__(self, doors: Doors, limits: Limits) -> None:
        self._d, self._limits = doors, limits

    async def templates(self, _request: web.Request) -> web.Response:
        """All templates: what a form needs to offer them."""
        return answer({"items": [_template(each) for each in self._d.library().values()], "next": None})

    async def template(self, request: web.Request) -> web.Response:
        """One template, with the cases that are its meaning."""
        known, id = self._d.library(), request.match_info["id"]
        found = known.get(id)
        if found is None:
            near = nearest(id, known)
            remedy = f"did you mean `{near}`?" if near else "`connector templates` lists them, as `GET /v1/templates` does"
            raise NotFound(f"there is no template `{id[:80]}`; {remedy}")
        cases = [{"say": each.say, "parameters": each.parameters, "result": each.result} for each in found.cases]
        return answer(_template(found) | {"cases": cases})

    async def policy(self, request: web.Request) -> web.Response:
        """What a policy comes to: the document to publish and what to keep beside it, every finding, plain words."""
        said: Policy = decode(await read_body(request, self._limits) if request.can_read_body else b"", Policy)
        given = {name: value for name in FORMS if (value := getattr(said, name)) is not None}
        if len(given) != 1:
            raise InvalidRequest(f"say one policy in one form: {', '.join(f'`{name}`' for name in FORMS)}", pointer="")
        ((name, value),) = given.items()
        content = value if isinstance(value, list) else value.encode() if isinstance(value, str) else orjson.dumps(value)
        found = await asyncio.to_thread(self._d.examine, content, FORMS[name], said.lang, self._d.journal.clock.now())
        return answer(found.to_json())


def _template(each: Template) -> dict[str, Any]:
    return {
        "id": each.id,
        "version": each.version,
        "label": _label(each.label),
        "class": each.stands_for,
        "profile": each.profile or None,
        "parameters": [_parameter(parameter) for parameter in each.parameters.values()],
    }


def _parameter(each: Parameter) -> dict[str, Any]:
    """`low` and `high` bound numbers, `choices` are the only values; without a `default` it has to be given."""
    return {
        "name": each.name,
        "type": each.type,
        "label": _label(each.label),
        "many": each.many,
        "required": each.default is None,
        "default": each.default,
        "choices": list(each.choices),
        "low": _number(each.low),
        "high": _number(each.high),
    }


def _label(label: Label) -> dict[str, str]:
    return {"en": label.en, "zh": label.zh}


def _number(bound: Number | None) -> int | float | None:
    return bound if bound is None or isinstance(bound, int) else float(bound)
