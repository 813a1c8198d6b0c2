"""Several methods on one clip: enlargements of the same thing, side by side; what is stored is not made again.

There is no record of a comparison: those that stand beside one another are those of the same clip at the same scale,
held against the same original. Knows requests and records. Refuses to know who makes them.
"""

from __future__ import annotations

from collections.abc import Iterable

from studio.clips.reference import FileReference
from studio.records.enlargements import VIDEO, Enlargement, EnlargementStore
from studio.records.runs import RunStore
from studio.requests.super_resolution import SuperResolutionRequest
from studio.super_resolve.verb import begin, hold_against


def begun(
    request: SuperResolutionRequest,
    *,
    store: RunStore,
    owner: str = "local",
    original: FileReference | None = None,
) -> Enlargement:
    """The enlargement that asks for this already, however far it is; else a new one. It is held against the original.

    Raises:
        StudioError: as `begin` and `hold_against`.
    """
    stored = [
        each for each in EnlargementStore(store.folder).list(owner=owner) if _asks_the_same(each.request, request)
    ]
    # What is complete before what is not, the newest first.
    known = min(stored, key=lambda each: each.state != "complete", default=None)
    if known is None:
        return begin(request, store=store, owner=owner, original=original)
    return known if original is None else hold_against(known.id, original, store=store)


def is_done(enlargement: Enlargement) -> bool:
    """Whether it is made and measured."""
    return enlargement.state == "complete" and VIDEO in enlargement.measurements


def beside(enlargement: Enlargement, others: Iterable[Enlargement]) -> list[Enlargement]:
    """It and those that may stand beside it, the newest of each method and settings; the earliest begun first."""
    rows = [enlargement]
    for each in others:
        same_clip = each.request.source.sha256 == enlargement.request.source.sha256
        if not same_clip or each.request.scale != enlargement.request.scale or each.original != enlargement.original:
            continue
        if not any(_asks_the_same(each.request, row.request) for row in rows):
            rows.append(each)
    return sorted(rows, key=lambda each: each.created)


def _asks_the_same(one: SuperResolutionRequest, other: SuperResolutionRequest) -> bool:
    """The same of the same clip, wherever it lies."""
    return one.source.sha256 == other.source.sha256 and _settings(one) == _settings(other)


def _settings(request: SuperResolutionRequest) -> dict[str, object]:
    return request.model_dump(exclude={"source"})
