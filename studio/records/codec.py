"""Records: frozen dataclasses as JSON and back, by pydantic. What does not fit is said in one sentence.

Where JSON has no word for a value, its field's annotation says how it is written. Refuses to know what is recorded,
and where.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Annotated, TypeAlias, TypeVar

from pydantic import JsonValue, PlainSerializer, TypeAdapter, ValidationError

T = TypeVar("T")


def number_in_json(value: float) -> float | str:
    """Finite ones as they are, the others as the words "inf", "-inf" and "nan"."""
    return float(value) if math.isfinite(value) else str(float(value))


Score: TypeAlias = Annotated[float, PlainSerializer(number_in_json, when_used="json")]
"""A measured number, which may be infinite or NaN: Python's own `json` would write `Infinity`, which no browser
reads."""


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
