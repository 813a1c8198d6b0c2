"""Runs that are there already: which of them answers a cell, so that it need not be made again.

Knows what makes two runs the same: request, preset, surroundings and device. Refuses to make one.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from studio.compare.cells import Cell, Comparison
from studio.errors import RunError
from studio.preset import find_preset
from studio.records.run import Run
from studio.records.runs import RunStore
from studio.requests.generation import GenerationRequest


def find_stored(
    request: GenerationRequest,
    store: RunStore,
    *,
    owner: str | None,
    environment: dict[str, str],
    like: Run | None = None,
    taken: Iterable[str] = (),
) -> Run | None:
    """The newest complete run that is what this request would make here: same request, preset, and surroundings.

    Args:
        request: What is wanted.
        store: Where to look.
        owner: Whose runs may be taken.
        environment: What a run's environment must say, as far as it is known here.
        like: The reference's run: the whole environment and the device must then be its own.
        taken: Runs that are not to be taken.
    """
    digest = find_preset(request.preset).digest
    words = " ".join(request.prompt.split()[:8])
    for run in store.search(words, owner=owner, preset=request.preset, state="complete", limit=200):
        same_place = like is None or (
            run.environment == like.environment
            and (run.placement and run.placement.device_name) == (like.placement and like.placement.device_name)
        )
        if (
            run.request == request
            and run.preset_digest == digest
            and not run.partial
            and run.id not in taken
            and same_place
            and all(run.environment.get(name) == value for name, value in environment.items())
            and run.video.is_file()
        ):
            return run
    return None


def stored_for(comparison: Comparison, cell: Cell, store: RunStore, environment: dict[str, str]) -> Run | None:
    """A run to take in place of making one. With repeats timing is the point, and nothing old is taken."""
    if cell.run_id is not None:  # pinned
        with suppress(RunError):
            run = store.get(cell.run_id, owner=comparison.owner)
            if run.state == "complete" and run.video.is_file():
                return run
    if any(each.repeat for each in comparison.cells):
        return None
    reference = comparison.cells[cell.reference]
    like = None if cell.is_reference else run_of(reference, store)
    if cell.is_reference:  # a pinned clip says in which surroundings its reference must have been made
        pins = [each for each in comparison.cells if each.reference == cell.number and each.run_id and not each.ended]
        like = run_of(pins[0], store) if pins else None
    taken = {each.run_id for each in comparison.cells if each.run_id}
    return find_stored(
        cell.request,
        store,
        owner=comparison.owner,
        environment={} if like is not None and cell.is_reference else environment,
        like=like,
        taken=[run_id for run_id in taken if run_id],
    )


def run_of(cell: Cell, store: RunStore) -> Run | None:
    with suppress(RunError):
        return store.get(cell.run_id) if cell.run_id else None
    return None
