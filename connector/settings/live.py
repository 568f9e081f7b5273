"""Which settings change while the connector runs. The others are those that a socket, a file or a key was opened by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from connector.settings.fields import Settings, fields_of
from connector.values import Value, replace

# A whole section, or `section.field`.
LIVE = frozenset({
    "approval", "catalog", "credentials", "delivery", "edr", "egress.allow", "egress.http", "egress.ports", "limits.body_seconds",
    "limits.catalog_page", "limits.management_bytes", "limits.message_bytes", "metering.credit_windows", "metering.spool_bytes",
    "metering.untaken_seconds", "metering.window_bytes",
    "ledger.witness", "store.free_percent", "pulls", "receipts", "retention", "sources", "telemetry.log_format", "telemetry.log_level",
})  # fmt: skip


def taken(old: Settings, new: Settings) -> tuple[Settings, tuple[str, ...]]:
    """What is in force once `new` is read while `old` runs, and a line for each field that differs: applied, or waiting."""
    applied: dict[str, dict[str, Any]] = {}
    said = []
    for name, value in changed(old, new).items():
        section, _, field = name.partition(".")
        if LIVE.isdisjoint({section, name}):
            said.append(f"{name}: differs from what runs; restart to apply it")
        else:
            said.append(f"{name}: applied")
            applied.setdefault(section, {})[field] = value
    return replace(old, **{section: _with(getattr(old, section), values) for section, values in applied.items()}), tuple(said)


def changed(old: Settings, new: Settings) -> dict[str, Any]:
    """`section.field` -> new value of each field that differs; None for a credential that is gone."""
    found: dict[str, Any] = {}
    for section in fields_of(Settings):
        before, after = _values(getattr(old, section.name)), _values(getattr(new, section.name))
        names = (*after, *(name for name in before if name not in after))
        found |= {f"{section.name}.{name}": after.get(name) for name in names if before.get(name) != after.get(name)}
    return found


def _values(section: Any) -> Mapping[str, Any]:
    return {each.name: getattr(section, each.name) for each in fields_of(type(section))} if isinstance(section, Value) else section


def _with(section: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(section, Value):
        return replace(section, **values)
    return {name: value for name, value in {**section, **values}.items() if value is not None}
