"""Walking a comparison here, as a stream of events: the command line's way.

Knows the order of the cells and who is told what. Refuses to know how a clip is made and how it is scored.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace

from studio.compare.cells import Cell, Comparison
from studio.compare.record import Comparisons
from studio.compare.scoring import completed, failed
from studio.compare.stored import run_of, stored_for
from studio.errors import RunError, StudioError
from studio.events import GenerationEvent, RunFinished, RunStarted
from studio.metrics import METRICS
from studio.records.runs import Run, RunStore


@dataclass(frozen=True, kw_only=True)
class CellStarted:
    cell: Cell
    of: int
    """Cells in all."""


@dataclass(frozen=True, kw_only=True)
class CellSaid:
    """What the stream of the cell under way says."""

    number: int
    event: GenerationEvent


@dataclass(frozen=True, kw_only=True)
class CellFinished:
    """The cell is complete or failed, and written down."""

    cell: Cell
    comparison: Comparison


@dataclass(frozen=True, kw_only=True)
class ComparisonFinished:
    comparison: Comparison


ComparisonEvent = CellStarted | CellSaid | CellFinished | ComparisonFinished


def compare(
    comparison: Comparison,
    *,
    store: RunStore,
    generate: Callable[..., Generator[GenerationEvent, None, None]] | None = None,
    environment: dict[str, str] | None = None,
    names: Sequence[str] = tuple(METRICS),
) -> Generator[ComparisonEvent, None, None]:
    """Walk the cells that wait, here. Closing the stream cancels the cell under way and stops the comparison, which
    `Comparisons.go_on` takes up again.

    Args:
        comparison: As `Comparisons.begin`, `get` or `go_on` returned it.
        store: Where runs are found and kept.
        generate: What makes a clip; None takes `studio.generate.generate`.
        environment: What a stored run's environment must say to be taken; None takes this process's whole one.
        names: Metrics to be measured.

    Raises:
        RunError: somebody else walks it, or it was deleted.
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
        raise RunError("The comparison is under way already.", field="comparison", value=comparison.id)
    try:
        comparison = book.get(comparison.id)  # under the lock: what was deleted meanwhile is not written again
        while (cell := comparison.next_cell) is not None:
            yield CellStarted(cell=cell, of=len(comparison.cells))
            try:
                run = stored_for(comparison, cell, store, environment)
                reused = run is not None
                if run is None:
                    run = yield from _made(cell, store, comparison.owner, generate)
                reference = None if cell.is_reference else run_of(comparison.cells[cell.reference], store)
                ended = completed(cell, run, reference, reused=reused, names=names)
            except StudioError as error:
                ended = failed(cell, error)
            comparison = comparison.with_cell(ended)
            book.write(comparison)
            yield CellFinished(cell=ended, comparison=comparison)
        comparison = replace(comparison, state="complete")
        book.write(comparison)
        yield ComparisonFinished(comparison=comparison)
    except (GeneratorExit, KeyboardInterrupt):
        book.write(replace(comparison, state="stopped"))
        raise
    finally:
        lock.release()


def _made(
    cell: Cell, store: RunStore, owner: str, generate: Callable[..., Generator[GenerationEvent, None, None]]
) -> Generator[ComparisonEvent, None, Run]:
    run_id = ""
    stream = generate(cell.request, store=store, owner=owner)
    try:
        for event in stream:
            if isinstance(event, (RunStarted, RunFinished)):
                run_id = event.run_id
            yield CellSaid(number=cell.number, event=event)
    finally:
        stream.close()
    return store.get(run_id, owner=owner)
