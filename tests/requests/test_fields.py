"""A model's fields are listed in the model: whoever draws them asks it."""

import ast
from pathlib import Path

import pytest

from studio.requests.fields import choices_of, help_of, label_of, largest, may_be_none
from studio.requests.generation import MAX_SEED, GenerationRequest
from studio.requests.training import FinetuneRequest

PROJECT = Path(__file__).parent.parent.parent
FILES = sorted((PROJECT / "studio").rglob("*.py"))
MOST_NAMED = 5
"""Fields of one model that may be named side by side, for a reason that is not theirs all."""


def _words(node: ast.AST) -> set[str]:
    """The texts that stand side by side in a tuple, a list, a set, or as a dictionary's keys."""
    parts = node.keys if isinstance(node, ast.Dict) else getattr(node, "elts", [])
    return {part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str)}


@pytest.mark.parametrize("model", [GenerationRequest, FinetuneRequest])
def test_no_room_lists_a_requests_fields_again(model: type[GenerationRequest] | type[FinetuneRequest]) -> None:
    fields = set(model.model_fields)
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            named = _words(node) & fields
            assert len(named) <= MOST_NAMED, f"{path.relative_to(PROJECT)} lists {sorted(named)}"


@pytest.mark.parametrize("model", [GenerationRequest, FinetuneRequest])
def test_every_field_has_a_label(model: type[GenerationRequest] | type[FinetuneRequest]) -> None:
    labels = [label_of(model, name) for name in model.model_fields]
    assert all(label[0].isupper() for label in labels)
    assert len(set(labels)) == len(labels)
    assert label_of(model, "colour") == ""


def test_a_model_says_what_its_fields_take() -> None:
    fields = GenerationRequest.model_fields
    assert choices_of(fields["quantization"]) == ("auto", "none", "int8")
    assert choices_of(fields["prompt"]) == ()
    assert largest(fields["seed"]) == MAX_SEED
    assert largest(FinetuneRequest.model_fields["lora_alpha"]) == 1024
    assert largest(fields["prompt"]) is None
    assert [name for name, field in fields.items() if may_be_none(field)] == [
        *("flow_shift", "adapter", "cache", "source", "control")
    ]
    assert help_of(fields["num_frames"]) == "Length of the clip."
