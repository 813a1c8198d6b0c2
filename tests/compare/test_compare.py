"""Compare: the grid, what is reused, what a failure leaves alone, what a restart finds, and what leaves the house."""

from __future__ import annotations

import csv
import io
import json
import math
import subprocess
import sys
from collections.abc import Generator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.patience import until
from support.scripted_generate import SURROUNDINGS as HERE
from support.scripted_generate import VERBS
from support.scripted_generate import generate as scripted

from studio.clips.clip import Clip
from studio.compare import (
    FULL,
    Comparison,
    Comparisons,
    Grid,
    Ratio,
    Seconds,
    cells_of,
    compare,
    method_of,
    pareto_front,
    parse_axis,
    parse_method,
    points_of,
    summaries_of,
)
from studio.compare.export import to_csv, to_json_text
from studio.compare.figures import speed_by_cell
from studio.compare.page import to_html
from studio.errors import ComparisonError, GridError, RequestError
from studio.events import (
    BlockComputed,
    BlockReused,
    CellFinished,
    ComparisonFinished,
    RunFinished,
    StageFinished,
    StepFinished,
)
from studio.jobs import Job, JobQueue
from studio.preset import find_preset
from studio.records.run import Run
from studio.records.runs import RunStore
from studio.requests.generation import GenerationRequest, read_request, request_for
from studio.requests.work import WalkComparison

QUICK = ("psnr", "ssim", "flicker")


def request(prompt: str = "steps=2", seed: int = 7, **fields: Any) -> GenerationRequest:
    small = {"height": 64, "width": 64, "num_frames": 5, "num_inference_steps": 8}
    return request_for(find_preset("pocket"), prompt=prompt, seed=seed, **(small | fields))


def grid(*methods: str, **changes: Any) -> Grid:
    return Grid(base=request(), methods=tuple(map(parse_method, methods)), **changes)


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "runs")


def walk(store: RunStore, comparison: Comparison, generate: Any = scripted) -> Comparison:
    *_, last = compare(comparison, store=store, generate=generate, environment=HERE, names=QUICK)
    assert isinstance(last, ComparisonFinished)
    return Comparisons(store).get(last.comparison_id)


# -- methods and grids ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "fields", "title"),
    [
        ("full", {}, "Full"),
        ("steps:15", {"num_inference_steps": 15}, "15 steps"),
        ("set:guidance_scale=1", {"guidance_scale": 1}, "guidance scale=1"),
        ("adacache", {"cache": {"method": "adacache"}}, "AdaCache"),
        ("adacache:moreg=true", {"cache": {"method": "adacache", "moreg": True}}, "AdaCache + MoReg"),
        ("adacache+moreg", {"cache": {"method": "adacache", "moreg": True}}, "AdaCache + MoReg"),
        ("budget:speedup=2", {"cache": {"method": "budget", "speedup": 2}}, "Budget (speedup=2)"),
        (
            "adacache:codebook=custom,thresholds=[0.1, 0.2],rates=[3,2,1]",
            {"cache": {"method": "adacache", "codebook": "custom", "thresholds": (0.1, 0.2), "rates": (3, 2, 1)}},
            "AdaCache (codebook=custom, thresholds=[0.1, 0.2], rates=[3, 2, 1])",
        ),
    ],
)
def test_a_method_is_a_word_with_settings(text: str, fields: dict[str, Any], title: str) -> None:
    method = parse_method(text)
    made = read_request(request().model_dump() | method.fields)
    assert made == request(**fields)
    assert method.title == title
    assert parse_method(method.text) == method, "the text is enough to make it again"


@pytest.mark.parametrize("text", ["adacash", "steps:many", "adacache:moreg", "set:", "set:seed=3", ""])
def test_what_is_no_method_is_refused(text: str) -> None:
    with pytest.raises(RequestError):
        parse_method(text)


def test_the_method_of_a_request_makes_its_cache_again() -> None:
    for cache in ({"method": "adacache", "moreg": True}, {"method": "adacache", "metric_layers": [1, 2]}, None):
        asked = request(cache=cache)
        method = method_of(asked)
        assert parse_method(method.text).fields.keys() == method.fields.keys()
        again = cells_of(grid(method.text))[-1].request
        assert again.cache == asked.cache


def test_a_grid_is_every_combination_with_equal_seeds_and_the_reference_first() -> None:
    cells = cells_of(
        grid(
            "adacache",
            "steps:4",
            prompts=("a car", "a bus"),
            seeds=(1, 2),
            axes=(parse_axis("guidance_scale=1,3"),),
        )
    )
    assert len(cells) == 2 * 2 * 2 * 3
    for group in range(8):
        mine = [cell for cell in cells if cell.group == group]
        assert [cell.method for cell in mine] == [FULL, "adacache", "steps:4"]
        assert mine[0].is_reference
        assert mine[0].request.cache is None
        assert {cell.reference for cell in mine} == {mine[0].number}
        assert len({(cell.request.prompt, cell.request.seed, cell.request.guidance_scale) for cell in mine}) == 1
    assert len({(c.request.prompt, c.request.seed, c.request.guidance_scale) for c in cells}) == 8


def test_repeats_walk_the_row_again_so_that_methods_and_reference_are_interleaved() -> None:
    cells = cells_of(grid("adacache", repeats=3))
    assert [(cell.method, cell.repeat) for cell in cells] == [
        (name, turn) for turn in range(3) for name in (FULL, "adacache")
    ]
    assert [cell.reference for cell in cells] == [0, 0, 2, 2, 4, 4]


def test_a_grid_that_will_not_do_is_refused_before_anything_is_made(store: RunStore) -> None:
    with pytest.raises(RequestError, match="reference does already"):
        cells_of(grid("steps:8"))
    with pytest.raises(RequestError, match="at most"):
        cells_of(grid("adacache", seeds=tuple(range(200))))
    with pytest.raises(GridError):
        cells_of(Grid(base=request(height=66), methods=(parse_method("adacache"),)))
    with pytest.raises(RequestError, match="nothing to compare"):
        Comparisons(store).begin(grid("full"))
    with pytest.raises(RequestError, match="Unknown setting"):
        parse_axis("colour=red,blue")
    assert Comparisons(store).list() == []


# -- walking ----------------------------------------------------------------------------------------------------------


def test_each_cell_is_made_scored_and_written_down_as_it_ends(store: RunStore) -> None:
    book = Comparisons(store)
    begun = book.begin(grid("adacache"))
    seen = []
    for event in compare(begun, store=store, generate=scripted, environment=HERE, names=QUICK):
        if isinstance(event, CellFinished):
            cell = book.get(begun.id).cell(event.cell)
            assert (cell.state, event.of) == ("complete", 2)
            seen.append(cell.method)
    assert seen == [FULL, "adacache"]
    full, cached = book.get(begun.id).cells
    assert book.get(begun.id).state == "complete"
    assert full.scores == {"flicker": 0.0}
    # The scripted verb paints every clip of a seed alike.
    assert cached.scores["psnr"] == math.inf
    assert cached.scores["ssim"] == pytest.approx(1)
    assert cached.frame_psnr == (math.inf, math.inf)
    assert cached.computed_share == 0.5


def test_scores_say_how_far_a_clip_is_from_its_reference(store: RunStore) -> None:
    """A flat grey clip beside one that is fifty levels brighter: PSNR = 20 log10(255 / 50)."""

    def flat(
        request: GenerationRequest, *, store: RunStore, owner: str = "local", stop: Any = None
    ) -> Generator[Any, None, None]:
        writer = store.begin(request, preset=find_preset("pocket"), owner=owner, environment=HERE)
        cached = request.cache is not None
        yield writer_says(writer, StageFinished(stage="encoding", seconds=0.5))
        for step in range(4):
            yield writer_says(
                writer, StepFinished(step=step, seconds=0.25 if cached else 1.0, peak_bytes=1, eta_seconds=0)
            )
        yield writer_says(writer, StageFinished(stage="decoding", seconds=1.5))
        frames = np.full((3, 64, 64, 3), 150 if cached else 100, np.uint8)
        writer.complete(Clip(frames=frames, fps=8))
        yield RunFinished(run_id=writer.id, partial=False, seconds=1)

    done = walk(store, Comparisons(store).begin(grid("adacache")), flat)
    cached = done.cell(1)
    assert cached.scores["psnr"] == pytest.approx(20 * math.log10(255 / 50), abs=0.2)  # the codec rounds
    assert len(cached.frame_psnr) == 3
    assert cached.seconds is not None
    assert (cached.seconds.encoding, cached.seconds.denoising, cached.seconds.decoding) == (0.5, 1.0, 1.5)
    assert cached.seconds.whole > 3
    denoising, whole = speed_by_cell(done)[1]
    assert denoising == pytest.approx(4)
    assert whole is not None
    assert 1.5 < whole < 2.1, "the text and the decoding are not made faster"


def writer_says(writer: Any, event: Any) -> Any:
    writer.record(event)
    return event


def test_a_failed_cell_keeps_its_error_and_the_others_go_on(store: RunStore) -> None:
    def sometimes(request: GenerationRequest, **options: Any) -> Any:
        fails = request.num_inference_steps == 4
        return scripted(request.model_copy(update={"prompt": "then=raise at=1"}) if fails else request, **options)

    done = walk(store, Comparisons(store).begin(grid("steps:4", "adacache")), sometimes)
    assert [cell.state for cell in done.cells] == ["complete", "failed", "complete"]
    assert (done.cell(1).error or {})["message"] == "NaN in step 1."
    assert done.state == "complete"


def test_without_its_reference_a_cell_still_has_its_clip_and_says_what_is_missing(store: RunStore) -> None:
    def no_full(request: GenerationRequest, **options: Any) -> Any:
        full = request.cache is None
        return scripted(request.model_copy(update={"prompt": "then=raise"}) if full else request, **options)

    done = walk(store, Comparisons(store).begin(grid("adacache")), no_full)
    assert [cell.state for cell in done.cells] == ["failed", "complete"]
    assert "psnr" not in done.cell(1).scores
    assert any("reference is missing" in notice for notice in done.cell(1).notices)
    assert speed_by_cell(done)[1] == (None, None)


def test_a_clip_of_another_size_is_not_held_against_its_reference(store: RunStore) -> None:
    def sized(
        request: GenerationRequest, *, store: RunStore, owner: str = "local", stop: Any = None
    ) -> Generator[Any, None, None]:
        writer = store.begin(request, preset=find_preset("pocket"), owner=owner, environment=HERE)
        frames = np.zeros((request.num_frames, request.height, request.width, 3), np.uint8)
        writer.complete(Clip(frames=frames, fps=8))
        yield RunFinished(run_id=writer.id, partial=False, seconds=0)

    done = walk(store, Comparisons(store).begin(grid("set:num_frames=9")), sized)
    assert "psnr" not in done.cell(1).scores
    assert "flicker" in done.cell(1).scores
    assert any("nothing to hold it against" in notice for notice in done.cell(1).notices)


# -- what is there already --------------------------------------------------------------------------------------------


def runs_made(store: RunStore) -> list[Run]:
    return store.search(limit=100)


def test_identical_runs_are_reused_and_marked(store: RunStore) -> None:
    walk(store, Comparisons(store).begin(grid("adacache")))
    assert len(runs_made(store)) == 2
    again = walk(store, Comparisons(store).begin(grid("adacache", "teacache")))
    assert [cell.reused for cell in again.cells] == [True, True, False]
    assert len(runs_made(store)) == 3


@pytest.mark.parametrize("other", [{"seed": 8}, {"num_inference_steps": 9}, {"cache": {"method": "teacache"}}])
def test_a_run_that_differs_in_anything_is_not_reused(store: RunStore, other: dict[str, Any]) -> None:
    fields: dict[str, Any] = {"cache": {"method": "adacache"}} | other
    for _ in scripted(request(**fields), store=store):
        pass
    done = walk(store, Comparisons(store).begin(grid("adacache")))
    assert not any(cell.reused for cell in done.cells)


def test_a_run_from_other_surroundings_or_of_somebody_else_is_not_reused(store: RunStore) -> None:
    for _ in scripted(request(), store=store, owner="somebody"):
        pass
    stranger = store.begin(request(), preset=find_preset("pocket"), environment={"python": "2.7"})
    stranger.complete(Clip(frames=np.zeros((2, 16, 16, 3), np.uint8), fps=8))
    done = walk(store, Comparisons(store).begin(grid("adacache")))
    assert not any(cell.reused for cell in done.cells)


def test_repeats_measure_anew(store: RunStore) -> None:
    walk(store, Comparisons(store).begin(grid("adacache")))
    done = walk(store, Comparisons(store).begin(grid("adacache", repeats=2)))
    assert not any(cell.reused for cell in done.cells)
    assert len({cell.run_id for cell in done.cells}) == 4


def test_a_pinned_clip_is_taken_as_it_is(store: RunStore) -> None:
    asked = request(cache={"method": "adacache"})
    for _ in scripted(asked, store=store):
        pass
    (run,) = runs_made(store)
    book, method = Comparisons(store), method_of(asked)
    begun = book.begin(Grid(base=asked, methods=(method,)), pinned={method.text: run.id})
    done = walk(store, begun)
    assert done.cell(1).run_id == run.id
    assert done.cell(1).request == asked
    assert done.cell(0).request == asked.model_copy(update={"cache": None})


# -- stopping, and starting again -------------------------------------------------------------------------------------


def test_a_closed_stream_stops_and_goes_on_where_it_stood(store: RunStore) -> None:
    book = Comparisons(store)
    stream = compare(book.begin(grid("adacache", "teacache")), store=store, generate=scripted, environment=HERE)
    for event in stream:
        if isinstance(event, CellFinished):
            break
    stream.close()
    (stopped,) = book.list()
    assert stopped.state == "stopped"
    assert [cell.state for cell in stopped.cells] == ["complete", "waiting", "waiting"]
    done = walk(store, book.go_on(stopped.id))
    assert [cell.state for cell in done.cells] == ["complete"] * 3
    assert done.cell(0) == stopped.cell(0), "what was made is not made again"


def test_two_do_not_walk_one_comparison(store: RunStore) -> None:
    book = Comparisons(store)
    begun = book.begin(grid("adacache"))
    first = compare(begun, store=store, generate=scripted, environment=HERE)
    next(first)
    with pytest.raises(ComparisonError, match="under way"):
        next(compare(begun, store=store, generate=scripted, environment=HERE))
    first.close()


@pytest.fixture
def queue(store: RunStore) -> Generator[JobQueue, None, None]:
    with JobQueue(store=store, verbs=VERBS, in_process=True) as opened:
        yield opened


def submitted(queue: JobQueue, comparison: Comparison) -> Job:
    return queue.submit(WalkComparison(comparison_id=comparison.id), owner=comparison.owner)


def ended(queue: JobQueue, job: Job) -> Job:
    return until(lambda: now if (now := queue.get(job.id)).final else None)


def test_a_comparison_is_one_job(store: RunStore, queue: JobQueue) -> None:
    book = Comparisons(store)
    begun = book.begin(grid("adacache", "steps:4"))
    job = ended(queue, submitted(queue, begun))
    done = book.get(begun.id)
    assert (job.state, job.run_id) == ("complete", done.cells[-1].run_id)
    assert [cell.state for cell in done.cells] == ["complete"] * 3
    assert all(cell.scores["flicker"] == 0 for cell in done.cells)
    assert [each.id for each in queue.jobs()] == [job.id]


def test_a_comparison_gives_the_turn_back_between_its_cells(store: RunStore, queue: JobQueue) -> None:
    """Who asks for one clip does not wait for another's whole grid, nor behind their own."""
    begun = Comparisons(store).begin(replace(grid("adacache", "teacache"), prompts=("steps=3 pause=0.1 blocks=2",)))
    job = submitted(queue, begun)
    until(lambda: queue.get(job.id).run_id)
    clip = ended(queue, queue.submit(request("steps=1")))
    assert clip.state == "complete"
    assert Comparisons(store).get(begun.id).ended < 3, "the grid was not walked to its end first"
    assert ended(queue, job).state == "complete"
    assert queue.get(job.id).attempts == 1, "making room is no new attempt"


def test_a_paused_queue_walks_no_further_cell(store: RunStore, queue: JobQueue) -> None:
    begun = Comparisons(store).begin(replace(grid("adacache", "teacache"), prompts=("steps=3 pause=0.1 blocks=2",)))
    job = submitted(queue, begun)
    until(lambda: queue.get(job.id).run_id)
    queue.pause()
    until(lambda: queue.get(job.id).state == "queued")
    stood = Comparisons(store).get(begun.id)
    assert stood.ended == 1
    queue.resume()
    assert ended(queue, job).state == "complete"


def test_a_failure_stays_in_its_cell(store: RunStore, queue: JobQueue) -> None:
    book = Comparisons(store)
    begun = book.begin(replace(grid("adacache"), prompts=("then=raise steps=3", "steps=2")))
    assert ended(queue, submitted(queue, begun)).state == "complete"
    done = book.get(begun.id)
    assert [cell.state for cell in done.cells] == ["failed", "failed", "complete", "complete"]
    assert "NaN" in (done.cell(0).error or {})["message"]


def test_a_restart_finds_its_comparison_and_goes_on(store: RunStore) -> None:
    book = Comparisons(store)
    begun = book.begin(replace(grid("adacache", "teacache"), prompts=("steps=3 pause=0.1 blocks=2",)))
    with JobQueue(store=store, verbs=VERBS, in_process=True) as first:
        job = submitted(first, begun)
        until(lambda: book.get(begun.id).ended == 1 and book.get(begun.id).cells[1].state == "running")
    left = book.get(begun.id)
    assert left.ended == 1
    with JobQueue(store=store, verbs=VERBS, in_process=True) as second:
        assert ended(second, job).state == "complete"
    done = book.get(begun.id)
    assert [cell.state for cell in done.cells] == ["complete"] * 3
    assert done.cell(0) == left.cell(0)


def test_whoever_stops_a_comparison_stops_its_clip(store: RunStore, queue: JobQueue) -> None:
    book = Comparisons(store)
    begun = book.begin(replace(grid("adacache"), prompts=("steps=200 pause=0.05",)))
    job = submitted(queue, begun)
    until(lambda: queue.get(job.id).run_id)
    queue.cancel(job.id)
    assert ended(queue, job).state == "cancelled"
    stopped = book.get(begun.id)
    assert stopped.state == "stopped"
    assert [cell.state for cell in stopped.cells] == ["waiting", "waiting"]
    assert [run.state for run in store.search()] == ["cancelled"]


def test_a_comparison_that_waits_can_be_stopped(store: RunStore) -> None:
    book = Comparisons(store)
    begun = book.begin(grid("adacache"))
    assert book.stop(begun.id).state == book.get(begun.id).state == "stopped"
    walked = compare(book.go_on(begun.id), store=store, generate=scripted, environment=HERE)
    next(walked)
    assert book.stop(begun.id).state == "running", "whoever walks it ends it"
    assert book.is_walked(begun.id)
    walked.close()
    assert not book.is_walked(begun.id)


def test_comparisons_of_others_are_not_there(store: RunStore) -> None:
    book = Comparisons(store)
    begun = book.begin(grid("adacache"), owner="a")
    assert book.list(owner="b") == []
    with pytest.raises(ComparisonError, match="no comparison"):
        book.get(begun.id, owner="b")
    for odd in ("../../etc/passwd", "", None, 3, begun.id + "/x"):
        with pytest.raises(ComparisonError):
            book.get(odd)


def test_a_damaged_record_is_named_and_left_out_of_the_list(store: RunStore) -> None:
    book = Comparisons(store)
    begun = book.begin(grid("adacache"))
    book.path(begun.id).write_text('{"id": "half')
    assert book.list() == []
    with pytest.raises(ComparisonError, match="cannot be read"):
        book.get(begun.id)
    assert store.sweep() == []
    assert store.skipped == (), "the store does not take the records for runs"


# -- deleting ---------------------------------------------------------------------------------------------------------


def test_a_deleted_comparison_leaves_its_runs_and_nothing_else(store: RunStore) -> None:
    book = Comparisons(store)
    kept, gone = (walk(store, book.begin(grid(method))) for method in ("adacache", "teacache"))
    book.delete(gone.id)
    assert [comparison.id for comparison in book.list()] == [kept.id]
    assert not list(book.folder.glob(f"{gone.id}*"))
    for cell in gone.cells:
        assert store.get(cell.run_id or "").video.is_file()
    again = walk(store, book.begin(grid("teacache")))
    assert all(cell.reused for cell in again.cells)
    with pytest.raises(ComparisonError, match="no comparison"):
        book.delete(gone.id)


def test_a_comparison_under_way_is_not_deleted_until_it_is_stopped(store: RunStore) -> None:
    book = Comparisons(store)
    begun = book.begin(grid("adacache"))
    stream = compare(begun, store=store, generate=scripted, environment=HERE)
    next(stream)
    with pytest.raises(ComparisonError, match="Stop it first"):
        book.delete(begun.id)
    stream.close()
    book.delete(begun.id)
    assert not list(book.folder.iterdir())


def test_a_line_that_died_left_a_comparison_that_can_be_deleted(store: RunStore) -> None:
    book = Comparisons(store)
    left = book.begin(grid("adacache"))
    assert left.state == "running"
    book.delete(left.id)
    assert book.list() == []


def test_what_was_deleted_is_not_written_again(store: RunStore) -> None:
    book = Comparisons(store)
    begun = book.begin(grid("adacache"))
    book.delete(begun.id)
    with pytest.raises(ComparisonError, match="no comparison"):
        walk(store, begun)
    with pytest.raises(ComparisonError, match="no comparison"):
        book.go_on(begun.id)
    assert book.list() == []
    assert store.search() == []


def test_only_its_owner_deletes_a_comparison(store: RunStore) -> None:
    book = Comparisons(store)
    done = walk(store, book.begin(grid("adacache"), owner="a"))
    for odd in (done.id + "/x", "../" + done.id, "", None):
        with pytest.raises(ComparisonError, match="no comparison"):
            book.delete(odd, owner="a")
    with pytest.raises(ComparisonError, match="no comparison"):
        book.delete(done.id, owner="b")
    assert book.get(done.id) == done
    book.delete(done.id, owner="a")
    assert book.list() == []


# -- figures ----------------------------------------------------------------------------------------------------------


def timed(comparison: Comparison, seconds: dict[int, float], scores: dict[int, dict[str, float]]) -> Comparison:
    for number, value in seconds.items():
        cell = comparison.cell(number)
        comparison = comparison.with_cell(
            replace(
                cell,
                state="complete",
                seconds=Seconds(encoding=1, denoising=value, decoding=1, whole=value + 2),
                scores=scores.get(number, {}),
            )
        )
    return comparison


def test_a_speed_up_is_the_median_of_interleaved_repeats(store: RunStore) -> None:
    begun = Comparisons(store).begin(grid("adacache", repeats=3))
    done = timed(begun, {0: 8, 2: 10, 4: 12, 1: 4, 3: 5, 5: 20}, {})
    full, cached = summaries_of(done)
    assert full.denoising is not None
    assert cached.denoising == Ratio(median=2.0, low=9 / 12.5, high=11 / 4.5, count=3)
    assert cached.whole is not None
    assert cached.whole.median == pytest.approx(12 / 7)


def test_over_groups_the_median_and_quartiles_of_their_ratios_are_told(store: RunStore) -> None:
    begun = Comparisons(store).begin(grid("adacache", seeds=(1, 2, 3)))
    done = timed(begun, {0: 10, 1: 5, 2: 10, 3: 2.5, 4: 10, 5: 2}, {})
    assert summaries_of(done)[1].denoising == Ratio(median=4.0, low=3.0, high=4.5, count=3)


def test_a_cold_run_counts_only_where_there_is_no_other(store: RunStore) -> None:
    done = timed(Comparisons(store).begin(grid("adacache", repeats=2)), {0: 100, 1: 5, 2: 10, 3: 5}, {})
    done = done.with_cell(replace(done.cell(0), cold=True))
    assert points_of(done)[1].denoising == Ratio(median=2.0, low=2.0, high=2.0, count=2)


@pytest.mark.parametrize(
    ("full", "cached", "said"),
    [
        ((0.1,) * 6, (0.1, 0.05, 0.05, 0.05, 0.05, 0.05), ""),
        ((0.1, 0.1, 0.4, 0.1, 0.4, 0.4), (0.1,) * 6, "Unsteady timing"),
        ((0.6,) * 6, (0.1,) * 6, "cannot be"),
    ],
)
def test_a_timing_that_cannot_be_is_told_as_such(
    store: RunStore, full: tuple[float, ...], cached: tuple[float, ...], said: str
) -> None:
    """The scripted trace skips half of the passes: twice as fast can be, six times cannot."""

    def paced(
        request: GenerationRequest, *, store: RunStore, owner: str = "local", stop: Any = None
    ) -> Generator[Any, None, None]:
        writer = store.begin(request, preset=find_preset("pocket"), owner=owner, environment=HERE)
        for step, seconds in enumerate(full if request.cache is None else cached):
            skipped = step % 2 and request.cache is not None
            writer.record(
                BlockReused(step=step, block=0, branch="cond", age=1)
                if skipped
                else BlockComputed(step=step, block=0, branch="cond")
            )
            yield writer_says(writer, StepFinished(step=step, seconds=seconds, peak_bytes=1, eta_seconds=0))
        writer.complete(Clip(frames=np.zeros((2, 16, 16, 3), np.uint8), fps=8))
        yield RunFinished(run_id=writer.id, partial=False, seconds=0)

    done = walk(store, Comparisons(store).begin(grid("adacache")), paced)
    notices = [notice for cell in done.cells for notice in cell.notices if "timing" in notice or "as fast" in notice]
    assert bool(notices) == bool(said)
    assert all(said in notice for notice in notices)


def test_the_front_holds_what_no_other_beats_in_both() -> None:
    cells = cells_of(grid("adacache", "teacache", "steps:4", "easycache"))
    comparison = Comparison(id="x", owner="local", created="", methods=tuple(c.method for c in cells), cells=cells)
    scores = {0: math.inf, 1: 30.0, 2: 25.0, 3: 20.0, 4: math.nan}
    done = timed(
        comparison, {0: 10, 1: 5, 2: 6, 3: 2, 4: 1}, {number: {"psnr": value} for number, value in scores.items()}
    )
    points = points_of(done)
    assert [point.method for point in pareto_front(points, "psnr")] == [FULL, "adacache", "steps:4"]
    for point, value in zip(points, (0.0, 1.0, 2.0, 0.5, 3.0), strict=True):
        point.scores["flicker"] = value  # less is better
    assert [point.method for point in pareto_front(points, "flicker")] == [FULL, "steps:4", "easycache"]


# -- what leaves the house --------------------------------------------------------------------------------------------

EVIL = '=cmd|"<script>alert(1)</script>", a car\n& a bus'


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.words: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_exports_parse_and_what_was_typed_stays_text(store: RunStore) -> None:
    done = walk(store, Comparisons(store).begin(grid("adacache", "steps:4", prompts=(EVIL,))))
    done = done.with_cell(replace(done.cell(2), state="failed", error={"message": "<img src=x>", "way_out": ""}))

    rows = list(csv.DictReader(io.StringIO(to_csv(done))))
    assert [row["method"] for row in rows] == [FULL, "adacache", "steps:4"]
    assert rows[0]["prompt"] == "'" + EVIL, "no formula for a spreadsheet"
    assert json.loads(rows[0]["request"])["prompt"] == EVIL
    assert rows[1]["psnr"] == "inf"
    assert float(rows[1]["computed_share"]) == pytest.approx(2 / 3)
    assert rows[2]["error"] == "<img src=x>"

    record = json.loads(to_json_text(done), parse_constant=lambda word: pytest.fail(f"{word} is no word of JSON"))
    assert record["cells"][0]["request"]["prompt"] == EVIL
    assert record["summaries"][1]["scores"]["psnr"] == "inf"
    assert "owner" not in record

    page = to_html(done, store)
    seen = _Tags()
    seen.feed(page)
    assert "script" not in seen.tags
    assert seen.tags.count("img") == sum(address.startswith("data:image/jpeg") for address in seen.addresses) == 3
    assert any("<script>alert(1)</script>" in words for words in seen.words)
    assert all(address.startswith("data:") for address in seen.addresses)


def test_the_page_draws_the_points_and_the_front(store: RunStore) -> None:
    begun = Comparisons(store).begin(grid("adacache", "steps:4"))
    done = timed(begun, {0: 10, 1: 5, 2: 4}, {1: {"psnr": 30.0}, 2: {"psnr": 22.0}})
    page = to_html(done)
    seen = _Tags()
    seen.feed(page)
    assert "polyline" in seen.tags
    assert any("AdaCache: 2.00×, 30.00 dB" in words for words in seen.words)


# -- the real thing ---------------------------------------------------------------------------------------------------


def test_the_command_line_compares_and_writes_the_three_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from studio.__main__ import main

    monkeypatch.setenv("DAILIES_RUNS", str(tmp_path / "runs"))
    small = ["--height", "64", "--width", "64", "--num-frames", "5", "--steps", "4"]
    command = ["compare", "--prompt", "a red car", "--seed", "3", "--method", "full", "--method", "steps:2", *small]
    out = tmp_path / "out"
    assert main([*command, "-o", str(out), "--json"]) == 0
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [record["event"] for record in said] == ["CellFinished", "CellFinished", "ComparisonFinished"]
    cell = said[1]["cell"]
    assert 5 < cell["scores"]["psnr"] < 60
    assert 0 < cell["scores"]["ms_ssim"] < 1
    assert cell["seconds"]["denoising"] < cell["seconds"]["whole"]
    assert {path.name for path in out.iterdir()} == {"comparison.csv", "comparison.json", "comparison.html"}

    assert main([*command, "--method", "set:guidance_scale=1"]) == 0
    printed = capsys.readouterr().out
    assert printed.count(" stored") == 2
    assert "2 steps" in printed


def test_the_command_line_deletes_a_comparison_and_says_that_its_clips_stay(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from studio.__main__ import main

    monkeypatch.setenv("DAILIES_RUNS", str(tmp_path / "runs"))
    store = RunStore(tmp_path / "runs")
    book = Comparisons(store)
    first, second = (walk(store, book.begin(grid(method))).id for method in ("adacache", "teacache"))
    assert main(["compare", "--delete", first]) == 0
    assert capsys.readouterr().out == f"deleted {first}; its clips stay among the runs\n"
    assert main(["compare", "--delete", second, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"event": "ComparisonDeleted", "id": second}
    assert book.list() == []
    assert len(runs_made(store)) == 3

    assert main(["compare", "--delete", first]) == ComparisonError.exit_status
    assert first in capsys.readouterr().err


def test_importing_compare_loads_nothing_heavy() -> None:
    code = "import sys, studio.compare, studio.compare.page; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "diffusers", "transformers", "gradio", "av", "cv2"} & set(done.stdout.split())
