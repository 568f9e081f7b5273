"""Policy templates: choices and values from a form -> an offer on the wire of DSP 2025-1.

A template is data with typed parameters; several are combined with "and" (what "or" means are several offers). A parameter takes the place
of a whole value, `$name`, and is written there as the literal or IRI of its type: no text is put together, so no value can say anything
else than a value. The choice that made a policy is kept beside it, so that its form can be opened again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from connector.errors import PolicyError
from connector.odrl.codes import Code
from connector.odrl.vocabulary import DSP_CONTEXT, ODRL
from connector.odrl.words import shown
from connector.odrl_forms.checking import Checking, at
from connector.odrl_forms.parameters import written
from connector.odrl_forms.template_files import Template
from connector.odrl_reading.reading import nearest

RDF_VALUE: Final = "http://www.w3.org/1999/02/22-rdf-syntax-ns#value"  # no prefix of the DSP context leads there
_CHOICE: Final = ("template", "version", "parameters")


def instantiate(library: Mapping[str, Template], chosen: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Make the offer of a choice of templates.

    `library`: id -> template, see `read_templates`. `chosen`: one `{"template": id, "parameters": {name: value}}` for each template, in
    the order in which its rules shall stand; a value is a string, a number, or a list of them where the parameter is `many`. A `version`
    beside them must be that of the template. The offer has one permission, with the constraints and duties of all, and forbids to
    distribute (which `use` would include) unless a template says otherwise; it has neither `@id` nor target.

    Raises PolicyError whose findings name each parameter, what is wrong with it and how to mend it: `/0/parameters/end`.
    """
    checking = Checking("the choice of templates")
    bodies = [(template, body) for template, values in _values(library, chosen, checking) if (body := _filled(template, values))]
    checking.done()
    offer = _combined(bodies, checking)
    checking.done()
    return offer


def origin(library: Mapping[str, Template], chosen: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What to keep beside the offer so that its form can be opened again: each template with its version and all its parameters, defaults
    too. `instantiate` makes the same offer of it. Raises PolicyError as `instantiate` does."""
    instantiate(library, chosen)
    return [
        {
            "template": entry["template"],
            "version": library[entry["template"]].version,
            "parameters": {
                name: entry.get("parameters", {}).get(name, parameter.default)
                for name, parameter in library[entry["template"]].parameters.items()
            },
        }
        for entry in chosen
    ]


def _values(
    library: Mapping[str, Template], chosen: Sequence[Mapping[str, Any]], checking: Checking
) -> list[tuple[Template, dict[str, Any]]]:
    """Each chosen template with its parameters as they are written on the wire."""
    found = []
    if not chosen:
        checking.note("", "no template is chosen", "choose one at least; `open` sets no condition")
    for path, entry in checking.entries(chosen, ""):
        raw = checking.mapping(entry, path, _CHOICE)
        name = raw.get("template")
        if not isinstance(name, str) or name not in library:
            near = nearest(name, library) if isinstance(name, str) else None
            fix = f"did you mean `{near}`?" if near else "`connector templates` and `GET /v1/templates` list them"
            message = "it is missing" if name is None else f"`{shown(str(name))}` is no template"
            checking.note(f"{path}/template", message, fix)
            continue
        template = library[name]
        if raw.get("version") not in (None, template.version):
            message = f"it was made with version {shown(str(raw['version']))} of `{name}`, which has version {template.version} now"
            checking.note(f"{path}/version", message, "open the form again, look at the values, and leave `version` out")
        given = checking.mapping(raw.get("parameters"), f"{path}/parameters", template.parameters)
        wire = {}
        for parameter in template.parameters.values():
            value = given.get(parameter.name, parameter.default)
            try:
                wire[parameter.name] = written(parameter, value, template.prefixes)
            except PolicyError as error:
                where = at(f"{path}/parameters", parameter.name)
                code = Code.MALFORMED if value is None else Code.TYPE_MISMATCH
                checking.note(where, f"`{parameter.name}` ({parameter.label.en}) of `{name}`: {error.message}", error.reasons[-1], code)
        found.append((template, wire))
    return found


def _filled(template: Template, values: Mapping[str, Any]) -> Mapping[str, Any]:
    """The body with a value in each place of a parameter; {} if one is missing."""
    if values.keys() != template.parameters.keys():
        return {}
    filled: dict[str, Any] = {part: _replaced(raw, values) for part, raw in template.body.items()}
    return filled or {"constraint": []}


def _replaced(raw: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(raw, str) and raw.startswith("$"):
        return values[raw[1:]]
    if isinstance(raw, list):
        return [_replaced(entry, values) for entry in raw]
    if isinstance(raw, Mapping):
        return {key: _replaced(value, values) for key, value in raw.items()}
    return raw


def _combined(bodies: Sequence[tuple[Template, Mapping[str, Any]]], checking: Checking) -> dict[str, Any]:
    action = _one(bodies, "action", checking) or "use"
    assignee = _one(bodies, "assignee", checking)
    permission = {
        "action": action,
        "assignee": assignee,
        "constraint": _all(bodies, "constraint"),
        "duty": [_duty(duty) for duty in _all(bodies, "duty")],
    }
    rules: dict[str, list[dict[str, Any]]] = {
        "permission": [{key: value for key, value in permission.items() if value}],
        "prohibition": _all(bodies, "prohibition"),
        "obligation": [_duty(duty) for duty in _all(bodies, "obligation")],
    }
    if not any(template.distribution for template, _ in bodies):
        rules["prohibition"] += [rule for rule in ({"action": "odrl:distribute"},) if rule not in rules["prohibition"]]
    profiles = list(dict.fromkeys(template.profile for template, _ in bodies if template.profile))
    return {
        "@context": [DSP_CONTEXT],
        "@type": "Offer",
        **({"profile": profiles} if profiles else {}),
        **{kind: of for kind, of in rules.items() if of},
        **({"odrl:conflict": {"@id": "odrl:prohibit"}} if rules["prohibition"] else {}),
    }


def _one(bodies: Sequence[tuple[Template, Mapping[str, Any]]], part: str, checking: Checking) -> Any:
    """The one value of a part that cannot stand twice."""
    found: Any = None
    first = ""
    for index, (template, body) in enumerate(bodies):
        if part in body and found is not None and body[part] != found:
            message = f"`{first}` and `{template.id}` both say the {part}"
            checking.note(f"/{index}", message, "choose one of them; what either may do are two offers", Code.CONFLICTING_TERMS)
        elif part in body:
            found, first = body[part], template.id
    return found


def _all(bodies: Sequence[tuple[Template, Mapping[str, Any]]], part: str) -> list[dict[str, Any]]:
    """What all templates say of one part, each once."""
    return list({json.dumps(entry, sort_keys=True): entry for _, body in bodies for entry in body.get(part, ())}.values())


def _duty(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A duty as the wire has it: the schema of DSP looks at no duty of a permission, so its action may be refined there."""
    if "refinement" not in raw:
        return dict(raw)
    action = raw["action"]
    value = {"@id": f"odrl:{action}" if ":" not in action else action.replace(ODRL, "odrl:")}
    return {
        "action": {RDF_VALUE: value, "odrl:refinement": raw["refinement"]},
        **{key: of for key, of in raw.items() if key not in ("action", "refinement")},
    }
