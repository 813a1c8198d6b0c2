"""Records: frozen dataclasses as JSON and back, by pydantic. What does not fit is said in one sentence.

Where JSON has no word for a value, its field's annotation says how it is written. Refuses to know what is recorded,
and where.
"""

from __future__ import annotations

from functools import cache
from typing import TypeVar

from pydantic import JsonValue, TypeAdapter, ValidationError

T = TypeVar("T")


@cache
def _adapter(kind: type[T]) -> TypeAdapter[T]:
    return TypeAdapter(kind)


def to_json(value: object) -> dict[str, JsonValue]:
    """A dataclass as a record that `from_json` reads back."""
    return _adapter(type(value)).dump_python(value, mode="json")


def from_json(kind: type[T], written: object) -> T:
    """A value of that kind, as it was written down; keys that it does not know are let be.

    Raises:
        ValueError: a field is missing or will not do; the first is named.
        StudioError: as a field's own reader says.
    """
    try:
        return _adapter(kind).validate_python(written)
    except ValidationError as error:
        fault = error.errors()[0]
        field = ".".join(str(part) for part in fault["loc"])
        value = "" if fault["type"] == "missing" else f" = {str(fault['input'])[:40]!r}"
        raise ValueError(f"{field}{value} will not do: {fault['msg']}") from error
