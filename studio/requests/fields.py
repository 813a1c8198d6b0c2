"""What a model says of its fields, for whoever draws them: labels, help, choices, ranges.

Knows how pydantic describes a field. Refuses to know controls and flags.
"""

from __future__ import annotations

import types
from typing import Any, Literal, Union, cast, get_args, get_origin

from annotated_types import Le
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from studio.preset import Preset


def label_of(model: type[BaseModel], name: str) -> str:
    """What a field is called on the page; empty where the model has none of that name."""
    field = model.model_fields.get(name)
    return "" if field is None else field.title or name.replace("_", " ").capitalize()


def defaults_of(preset: Preset, model: type[BaseModel]) -> dict[str, Any]:
    """What a preset proposes for a model's fields, by field."""
    return {name: value for name, value in preset.defaults if name in model.model_fields}


def help_of(field: FieldInfo) -> str:
    """What a field means, in one line."""
    return " ".join((field.description or "").split())


def choices_of(field: FieldInfo) -> tuple[str, ...]:
    """The words that a field can be; none where it is no choice."""
    is_choice = get_origin(field.annotation) is Literal
    return tuple(str(choice) for choice in get_args(field.annotation)) if is_choice else ()


def largest(field: FieldInfo) -> float | None:
    """The largest value a field takes; None where there is none."""
    return next((cast(float, bound.le) for bound in field.metadata if isinstance(bound, Le)), None)


def kinds_of(field: FieldInfo) -> tuple[Any, ...]:
    """The types that a field may have, None's left out."""
    kinds = get_args(field.annotation) if _is_union(field) else (field.annotation,)
    return tuple(kind for kind in kinds if kind is not types.NoneType)


def may_be_none(field: FieldInfo) -> bool:
    """Whether a field may be left empty."""
    return _is_union(field) and types.NoneType in get_args(field.annotation)


def _is_union(field: FieldInfo) -> bool:
    return get_origin(field.annotation) in (Union, types.UnionType)
