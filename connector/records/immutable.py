"""Values that are made once and handed on. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import cache
from operator import attrgetter
from typing import Any, TypeVar, cast, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def immutable(cls: type[T]) -> type[T]:
    """A dataclass that is equal and hashed by its members, has no others, and whose members nobody sets.

    It is mypy that holds the last of these, over the whole product, just as for `@dataclass(frozen=True)`. That one also sets each member
    by a call whenever a value is made: for the values of one negotiation, a twentieth of its whole cost.
    """
    return dataclass(slots=True, unsafe_hash=True)(cls)


def changed(value: T, **members: Any) -> T:
    """`dataclasses.replace` for such a value, which takes five times as long. Raises AttributeError for what is no member."""
    kind: Any = type(value)
    made: T = kind(*_members_of(kind)(value))
    for name, member in members.items():
        setattr(made, name, member)
    return made


@cache
def _members_of(kind: type[Any]) -> Callable[[Any], tuple[Any, ...]]:
    return cast(Callable[[Any], tuple[Any, ...]], attrgetter(*(each.name for each in fields(kind))))
