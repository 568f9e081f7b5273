"""Values that are made once and handed on. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def immutable(cls: type[T]) -> type[T]:
    """A dataclass that is equal and hashed by its members, has no others, and whose members nobody sets.

    It is mypy that holds the last of these, over the whole product, just as for `@dataclass(frozen=True)`. That one also sets each member
    by a call whenever a value is made: for the values of one negotiation, a twentieth of its whole cost.
    """
    return dataclass(slots=True, unsafe_hash=True)(cls)
