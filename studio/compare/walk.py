"""Walking a comparison, cell by cell, as a stream of events.

Knows the order of the cells and who is told what. Refuses to know how a clip is made and how it is scored.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial

from studio.compare.cells import Cell, Comparison
from studio.compare.record import Comparisons
from studio.compare.scoring import completed, failed
from studio.compare.stored import run_of, stored_for
from studio.errors import ComparisonError, StudioError
from studio.events import (
    CellFinished,
    CellStarted,
    ComparisonEvent,
    ComparisonFinished,
    GenerationEvent,
    RunFinished,
    RunStarted,
    Stop,
    never,
)
from studio.metrics import METRICS
from studio.records.run import Run
from studio.records.runs import RunStore
from studio.requests.work import WalkComparison


def walk(work: WalkComparison, *, store: RunStore, owner: str, stop: Stop) -> Generator[ComparisonEvent]:
    """`compare` as the queue calls it."""
    yield from compare(Comparisons(store).get(work.comparison_id), store=store, stop=stop)


def compare(
    comparison: Comparison,
    *,
    store: RunStore,
    stop: Stop = never,
    generate: Callable[..., Generator[GenerationEvent]] | None = None,
    environment: dict[str, str] | None = None,
    names: Sequence[str] = tuple(METRICS),
) -> Generator[ComparisonEvent]:
    """Walk the cells that wait. Closing the stream, or a `stop` that says so, cancels the cell under way and stops the
    comparison, which `Comparisons.go_on` takes up again; one that says "give way" ends the stream between two cells.

    Args:
        comparison: As `Comparisons.begin`, `get` or `go_on` returned it.
        store: Where runs are found and kept.
        stop: Asked at every block of every cell.
        generate: What makes a clip; None takes `studio.generate.generate`.
        environment: What a stored run's environment must say to be taken; None takes this process's whole one.
        names: Metrics to be measured.

    Raises:
        ComparisonError: somebody else walks it, or it was deleted.
        DiskFull: no room for the record.
    """
    if generate is None or environment is None:
        import torch

        from studio import generate as verb
        from studio.machine.environment import environment as here

        generate, environment = generate or verb.generate, environment or here(torch)
    book = Comparisons(store)
    lock = book.lock(comparison.id)
    if not lock.try_acquire():
        raise ComparisonError("The comparison is under way already.", field="comparison", value=comparison.id)
    try:
        comparison = book.begun(comparison.id)
        of = len(comparison.cells)
        while (cell := comparison.next_cell) is not None:
            if stop() == "give way":
                return
            book.write(comparison.with_cell(replace(cell, state="running")))
            yield CellStarted(comparison_id=comparison.id, cell=cell.number, of=of)
            make = partial(_made, cell, store, comparison.owner, generate, stop)
            ended = yield from _ended(comparison, cell, store, environment, names, make)
            if ended is None:
                book.write(replace(comparison, state="stopped"))
                return
            comparison = comparison.with_cell(ended)
            book.write(comparison)
            yield CellFinished(comparison_id=comparison.id, cell=cell.number, of=of)
        comparison = replace(comparison, state="complete")
        book.write(comparison)
        yield ComparisonFinished(comparison_id=comparison.id)
    except (GeneratorExit, KeyboardInterrupt):
        book.write(replace(comparison, state="stopped"))
        raise
    finally:
        lock.release()


def _ended(
    comparison: Comparison,
    cell: Cell,
    store: RunStore,
    environment: dict[str, str],
    names: Sequence[str],
    make: Callable[[], Generator[ComparisonEvent, None, Run | None]],
) -> Generator[ComparisonEvent, None, Cell | None]:
    """The cell as it ended, with a run that was here already or one that is made now; None where it was to stop."""
    try:
        run = stored_for(comparison, cell, store, environment)
        reused = run is not None
        if run is None:
            run = yield from make()
        if run is None:
            return None
        reference = None if cell.is_reference else run_of(comparison.cells[cell.reference], store)
        return completed(cell, run, reference, reused=reused, names=names)
    except StudioError as error:
        return failed(cell, error)


def _made(
    cell: Cell, store: RunStore, owner: str, generate: Callable[..., Generator[GenerationEvent]], stop: Stop
) -> Generator[ComparisonEvent, None, Run | None]:
    """The cell's run; None where it was to stop."""
    run_id, finished = "", False
    with closing(generate(cell.request, store=store, owner=owner, stop=stop)) as stream:
        for event in stream:
            if isinstance(event, (RunStarted, RunFinished)):
                run_id, finished = event.run_id, isinstance(event, RunFinished)
            yield event
    return store.get(run_id, owner=owner) if finished else None
