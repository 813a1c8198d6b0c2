"""The benchmark's tables hold families against each other where they do the same work, and invent nothing beyond."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import caching_tables


def _row(computed: float, psnr: float, family: str = "Some", **more: Any) -> dict[str, Any]:
    return {"family": family, "method": f"{family} {computed}", "computed": computed, "psnr": psnr} | more


def test_between_two_settings_a_familys_quality_is_a_straight_line() -> None:
    rows = [_row(0.4, 40.0, psnr_deviation=2.0, cpu=2.4), _row(0.6, 50.0, psnr_deviation=4.0, cpu=1.6)]
    assert caching_tables.at_share(rows, 0.5) == pytest.approx({"psnr": 45.0, "psnr_deviation": 3.0, "cpu": 2.0})


def test_beyond_a_familys_settings_there_is_nothing() -> None:
    rows = [_row(0.4, 40.0, psnr_deviation=0.0, cpu=2.0), _row(0.6, 50.0, psnr_deviation=0.0, cpu=1.5)]
    assert caching_tables.at_share(rows, 1 / 3) is None
    assert caching_tables.at_share(rows, 2 / 3) is None


def test_where_more_work_makes_it_worse_the_best_setting_speaks_for_the_family() -> None:
    rows = [_row(0.4, 40.0, psnr_deviation=1.0, cpu=2.0), _row(0.5, 39.0, psnr_deviation=0.0, cpu=1.8)]
    assert caching_tables.at_share(rows, 0.5) == pytest.approx({"psnr": 40.0, "psnr_deviation": 1.0, "cpu": 2.0})


def test_a_setting_that_another_of_its_family_beats_in_both_does_not_count() -> None:
    best = [_row(0.3, 30.0), _row(0.5, 45.0)]
    assert caching_tables.front([*best, _row(0.6, 44.0), _row(0.3, 28.0)]) == best


def _cells(method: str, psnr: list[float | str], computed: float) -> list[dict[str, Any]]:
    family = method.split()[0]
    rest = {"cpu": 1.5, "whole": 1.4, "kept_bytes": 10, "ssim": 0.9, "ms_ssim": 0.9, "agreement": {"lanes": 1.0}}
    return [
        {"method": method, "family": family, "steps": 30, "computed": computed, "psnr": value} | rest for value in psnr
    ]


def test_tables_say_how_many_clips_and_how_far_they_are_apart(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- benchmarks/caching.py -->\nold\n<!-- end -->\nafter\n", encoding="utf-8")
    cells = [*_cells("Budget 2×", [50.0, 54.0], 0.5), *_cells("Rival a", [40.0, 41.0], 0.5)]
    overhead = [cell | {"family": caching_tables.OVERHEAD} for cell in _cells("Overhead", ["inf"], 1.0)]
    caching_tables.write(tmp_path, [*cells, *overhead], readme)
    words = readme.read_text(encoding="utf-8")
    assert words.startswith("before\n")
    assert words.endswith("after\n")
    assert "old" not in words
    assert "2 clips a method" in words
    assert "| **Budget (ours)** | – | 52.0 ± 2.8 dB · 1.50× | – |" in words
    assert words.index("Budget (ours)") < words.index("| Rival |")
    assert "changes no bit" in words
    assert json.loads((tmp_path / "caching.json").read_text())["30"][0]["psnr_lowest"] == 50.0
    assert (tmp_path / "caching_30.png").is_file()


def test_an_equal_clip_counts_as_sixty_decibels_and_a_refusal_is_a_row_of_its_own() -> None:
    refused = {"method": "Rival b", "family": "Rival", "steps": 30, "error": "not here"}
    rows = caching_tables.rows_of([*_cells("Budget 1×", ["inf", 50.0], 1.0), refused])
    assert [row.get("psnr") for row in rows] == [55.0, None]
    assert rows[1]["error"] == "not here"
