"""What is written down comes back as it was, and what does not fit is said in one sentence."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support.small_runs import begin

from studio.compare.cells import Cell, Comparison, Seconds
from studio.compare.record import Comparisons
from studio.errors import OutOfMemory, StudioError
from studio.preset import Preset
from studio.records.codec import from_json, to_json
from studio.records.runs import RunStore
from studio.records.versions import VersionStore
from studio.requests.generation import GenerationRequest
from studio.requests.training import TrainingClip, finetune_request_for


@dataclass(frozen=True, kw_only=True)
class Small:
    """The least that a record can be."""

    name: str
    ages: tuple[tuple[int | None, ...], ...] = ()
    words: dict[str, str] = field(default_factory=dict)


def test_a_comparison_comes_back_as_it_was_through_strict_json(request_: GenerationRequest) -> None:
    cell = Cell(
        number=0,
        group=0,
        repeat=0,
        reference=0,
        method="full",
        request=request_,
        seconds=Seconds(encoding=0.0, denoising=2.5, decoding=0.5, whole=3.0),
        scores={"psnr": math.inf, "ssim": 0.5, "low": -math.inf},
        frame_psnr=(math.inf, 30.25),
        error=OutOfMemory("Memory ran out.", value=7).to_json(),
    )
    comparison = Comparison(id="x", owner="me", created="now", methods=("full",), cells=(cell,))
    text = json.dumps(to_json(comparison), allow_nan=False)
    assert from_json(Comparison, json.loads(text)) == comparison
    assert json.loads(text)["cells"][0]["scores"] == {"psnr": "inf", "ssim": 0.5, "low": "-inf"}


def test_keys_that_nobody_knows_any_more_are_let_be() -> None:
    written = {"name": "a", "ages": [[1, None]], "scores": {}, "provenance": {"from": "a file"}}
    assert from_json(Small, written) == Small(name="a", ages=((1, None),))


@pytest.mark.parametrize(
    ("written", "sentence"),
    [
        ({}, "name will not do: Field required"),
        ({"name": 3}, "name = '3' will not do: Input should be a valid string"),
        ({"name": "a", "ages": [[1, "x"]]}, "ages.0.1 = 'x' will not do: .* valid integer"),
        ({"name": "a", "words": {"k": 1}}, "words.k = '1' will not do: .* valid string"),
    ],
)
def test_what_does_not_fit_is_named_with_its_value(written: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{sentence}"):
        from_json(Small, written)


@pytest.mark.parametrize("damage", ["{", "null", "[]", "{}", "\xff", '{"id": 3, "cells": [{}]}', "[" * 100_000])
def test_a_damaged_record_is_refused_in_words_of_our_own(store: RunStore, preset: Preset, damage: str) -> None:
    run = begin(store, preset).cancel()
    versions, comparisons = VersionStore(store.folder), Comparisons(store)
    clip = TrainingClip(path=Path("a.mp4"), caption="a road")
    version = versions.begin(finetune_request_for(preset, clips=(clip,)), preset_digest="")
    comparison_id = "20261127-020202-0123456789abcdef"
    (run.folder / "run.json").write_text(damage, encoding="latin-1")
    (versions.path(version.id) / "version.json").write_text(damage, encoding="latin-1")
    comparisons.path(comparison_id).write_text(damage, encoding="latin-1")
    for read in (
        lambda: store.get(run.id),
        lambda: versions.get(version.id),
        lambda: comparisons.get(comparison_id),
    ):
        with pytest.raises(StudioError, match="cannot be read") as caught:
            read()
        assert "pydantic" not in str(caught.value)
        assert "\n" not in str(caught.value)
