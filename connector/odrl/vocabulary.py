"""The words of ODRL 2.2 that a policy may use here: prefixes, actions with their hierarchy, operators.

A word is compared as its full IRI, so that `use`, `odrl:use` and `http://www.w3.org/ns/odrl/2/use` are one action. Only the prefixes of the
DSP context are known; a word that another context would have to define has no meaning here, whatever stands in `@context`.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

ODRL: Final = "http://www.w3.org/ns/odrl/2/"
XSD: Final = "http://www.w3.org/2001/XMLSchema#"
DSP_CONTEXT: Final = "https://w3id.org/dspace/2025/1/context.jsonld"
W3C_CONTEXT: Final = "http://www.w3.org/ns/odrl.jsonld"
CORE_PROFILE: Final = ODRL + "core"

# DSP 2025-1, context: the prefixes at its top level, protected, so no other context can bend them.
PREFIXES: Final = MappingProxyType(
    {
        "odrl": ODRL,
        "xsd": XSD,
        "dct": "http://purl.org/dc/terms/",
        "dcat": "http://www.w3.org/ns/dcat#",
        "dspace": "https://w3id.org/dspace/2025/1/",
    }
)

# What starts like this is an absolute IRI; any other `word:rest` is a prefix that only a foreign context could resolve.
ABSOLUTE: Final = ("https://", "http://", "urn:", "did:", "tag:", "mailto:")

# The IRIs under which a currency goes by its code (ISO 4217): the authority table of the EU, QUDT, and the URN of ISO's own codes.
CURRENCIES: Final = (
    "http://publications.europa.eu/resource/authority/currency/",
    "https://publications.europa.eu/resource/authority/currency/",
    "http://qudt.org/vocab/currency/",
    "urn:iso:std:iso:4217:",
)

CC: Final = "http://creativecommons.org/ns#"  # the namespace of nine actions of ODRL's vocabulary; `CommericalUse` is spelled so there

# ODRL 2.2, vocabulary: each action of the core vocabulary with the action it is included in ("" for none), by full IRI.
INCLUDED_IN: Final = MappingProxyType(
    {
        ODRL + name: ODRL + above if above else ""
        for name, above in (
            {"use": "", "transfer": "", "give": "transfer", "sell": "transfer", "display": "play", "extract": "reproduce"}
            | dict.fromkeys(
                (
                    "acceptTracking", "aggregate", "annotate", "anonymize", "archive", "attribute", "compensate", "concurrentUse", "delete",
                    "derive", "digitize", "distribute", "ensureExclusivity", "execute", "grantUse", "include", "index", "inform", "install",
                    "modify", "move", "nextPolicy", "obtainConsent", "play", "present", "print", "read", "reproduce", "reviewPolicy",
                    "stream", "synchronize", "textToSpeech", "transform", "translate", "uninstall", "watermark",
                ),
                "use",
            )
        ).items()
    }
    | {
        CC + name: ODRL + "use"
        for name in (
            "Attribution", "CommericalUse", "DerivativeWorks", "Distribution", "Notice", "Reproduction", "ShareAlike", "Sharing",
            "SourceCode",
        )
    }
)  # fmt: skip

# Deprecated terms of one meaning with a term of today (ODRL 2.2, vocabulary, "deprecated": exactMatch).
EXACT_MATCH: Final = MappingProxyType(
    {
        ODRL + old: ODRL + new
        for old, new in {
            "append": "modify", "appendTo": "modify", "copy": "reproduce", "export": "transform", "license": "grantUse",
            "pay": "compensate",             "write": "modify", "writeTo": "modify",
        }.items()
    }
)  # fmt: skip

# Deprecated actions for which no action of the core stands (ODRL 2.2, vocabulary), with what says it today.
WITHOUT_SUCCESSOR: Final = MappingProxyType(
    {
        ODRL + name: instead
        for name, instead in {
            "adHocShare": "permit `odrl:distribute` with an `odrl:recipient`",
            "attachPolicy": "add a duty of `odrl:inform`",
            "attachSource": "add a duty of `odrl:distribute` with the source as its target",
            "commercialize": "permit `odrl:use` with an `odrl:purpose`",
            "lease": "permit `odrl:use` until an `odrl:dateTime`, with a duty of `odrl:compensate`",
            "lend": "permit `odrl:use` until an `odrl:dateTime`",
            "preview": "permit `odrl:display` or `odrl:play`",
            "secondaryUse": "permit `odrl:use` with an `odrl:purpose`",
            "share": "permit `odrl:distribute` with an `odrl:recipient`",
            "shareAlike": "add a duty of `odrl:nextPolicy`",
        }.items()
    }
)

OPERATORS: Final = ("eq", "neq", "lt", "lteq", "gt", "gteq", "isA", "hasPart", "isPartOf", "isAllOf", "isAnyOf", "isNoneOf")


def expand(word: str) -> str | None:
    """The absolute IRI that `word` stands for under the DSP context, or None where the context does not define it."""
    prefix, colon, rest = word.partition(":")
    if not colon:
        return None
    namespace = PREFIXES.get(prefix)
    if namespace is not None:
        return namespace + rest
    return word if word.startswith(ABSOLUTE) else None


def compact(iri: str) -> str:
    """The short form of an IRI in which people read it: `odrl:purpose`."""
    return "odrl:" + iri[len(ODRL) :] if iri.startswith(ODRL) else iri


# Every accepted spelling of an operator; all of them are terms of the DSP context.
OPERATOR_NAMES: Final = MappingProxyType({spelling: name for name in OPERATORS for spelling in (name, "odrl:" + name, ODRL + name)})
