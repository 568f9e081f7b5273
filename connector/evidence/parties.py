"""Whether header, agreement, negotiation, decisions and transfers speak of one agreement between two participants. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import orjson

from connector.evidence.case import Case
from connector.evidence.members import FORMAT, UNATTESTED, VERSION
from connector.metering.content import digest_of, write_bytes

HASH_BYTES = 32  # of `policy_hash` in a stored decision


def check(case: Case) -> None:
    """All of it."""
    _header(case)
    _agreement(case)
    _processes(case)
    _decisions(case)


def _header(case: Case) -> None:
    said, agreed = case.header.value, case.agreement.value
    if said["format"] != FORMAT:
        case.fault("format-other", case.header, "/format")
    if not UNATTESTED <= said["version"] <= VERSION:
        case.fault("version-other", case.header, "/version")
    if said["agreement"] != agreed["id"]:
        case.fault("agreement-other", case.agreement, "/id")
    if said["by"] != agreed[said["role"]]:
        case.fault("agreement-exporter", case.header, "/by")


def _agreement(case: Case) -> None:
    at, said = case.agreement, case.agreement.value
    document = said["document"]
    if document.get("@id") != said["id"]:
        case.fault("agreement-id", at, "/document/@id")
    if document.get("assigner") != said["provider"]:
        case.fault("agreement-provider", at, "/document/assigner")
    if document.get("assignee") != said["consumer"]:
        case.fault("agreement-consumer", at, "/document/assignee")
    if document.get("target") != said["dataset"]:
        case.fault("agreement-dataset", at, "/document/target")
    if said["provider"] == said["consumer"]:
        case.fault("agreement-parties", at, "/consumer")
    if write_bytes(digest_of(document)) != said["policy"]:
        case.fault("agreement-policy", at, "/policy")


def _processes(case: Case) -> None:
    agreed = case.agreement.value
    for number, member in enumerate(case.of("negotiation")):
        if number:
            case.fault("negotiation-twice", member)
        if member.value["pid"] != agreed["negotiation"] or not _ours(case, member.value):
            case.fault("negotiation-other", member, "/pid")
        if member.value["agreement"] != agreed["id"]:
            case.fault("negotiation-agreement", member, "/agreement")
        if agreed["final"] and member.value["state"] not in ("VERIFIED", "FINALIZED"):  # the provider's word counts from when it is said
            case.fault("agreement-open", member, "/state")
    seen = set()
    for member in case.of("transfer"):
        if member.value["pid"] in seen:
            case.fault("transfer-twice", member, "/pid")
        seen.add(member.value["pid"])
        if member.value["agreement"] != agreed["id"]:
            case.fault("transfer-agreement", member, "/agreement")
        if not _ours(case, member.value):
            case.fault("transfer-pids", member, "/pid")
        state, created, code = (member.value[name] for name in ("state", "created", "code"))
        if (state is None) != (created is None) or (state is None and code is not None):
            case.fault("transfer-half", member, "/state")


def _ours(case: Case, process: Mapping[str, Any]) -> bool:
    """Whether a process has the exporter's pid for its own."""
    return bool(process["pid"] == process["providerPid" if case.header.value["role"] == "provider" else "consumerPid"])


def _decisions(case: Case) -> None:
    agreed, seen = case.agreement.value, set()
    terms = {member.value["pid"]: (member.value["terms"] or {}).get("@id") for member in case.of("negotiation")}
    transfers = {member.value["pid"] for member in case.of("transfer")}
    own = blake2b(orjson.dumps(agreed["document"], option=orjson.OPT_SORT_KEYS), digest_size=HASH_BYTES).hexdigest()
    for member in case.of("decision"):
        pid, said = member.value["pid"], member.value["document"]
        if pid in seen:
            case.fault("decision-twice", member, "/pid")
        seen.add(pid)
        if pid not in transfers and pid not in terms:
            case.fault("decision-process", member, "/pid")
            continue
        policy = said.get("policy")  # a refusal for which no policy was needed has none
        if policy is not None and policy != agreed["id"] and (pid in transfers or policy != terms[pid]):
            case.fault("decision-policy", member, "/document/policy")
        if policy == agreed["id"] and said.get("policy_hash") != own:
            case.fault("decision-hash", member, "/document/policy_hash")
        asked = said.get("request")
        if isinstance(asked, dict):
            if asked.get("party") != agreed["consumer"]:
                case.fault("decision-party", member, "/document/request/party")
            if asked.get("target") not in (None, agreed["dataset"]):
                case.fault("decision-target", member, "/document/request/target")
