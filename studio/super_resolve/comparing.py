"""Several methods on one clip or several: enlargements side by side; what is stored is not made again.

Those that stand beside one another are those of the same clip at the same scale, held against the same original. Which
clips and methods somebody compares is written down as the list of their enlargements.

Knows requests and records. Refuses to know who makes them, and how their figures are set beside one another
(`over_clips`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from studio.clips.reference import FileReference
from studio.errors import RequestError, StudioError
from studio.records.enlargement_comparisons import EnlargementComparison, EnlargementComparisonStore
from studio.records.enlargements import BICUBIC, VIDEO, Enlargement, EnlargementStore, SourceRecord
from studio.records.runs import RunStore
from studio.requests.caches import parts_of, value_of
from studio.requests.super_resolution import SuperResolutionRequest, read_super_resolution_request
from studio.super_resolve.verb import begin, check_original, hold_against, look_at

MOST_COMPARED = 100
"""Enlargements of one comparison."""
_APART = ("source", "scale")
"""Fields that all methods share, and none says."""
_SHARED = {*_APART, "back_projections"}
"""Fields that a method has from whoever asks, where it says nothing else."""


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


def request_by(method: str, base: SuperResolutionRequest) -> SuperResolutionRequest:
    """The same clip at the same scale, by a method as a person writes it.

    Args:
        method: `lanczos`, or with settings of its own: `pocket:restore=true`, `pocket:adapter=VERSION`.
        base: Whose clip, scale and rounds of back-projection it has; the rest was told its own method.

    Raises:
        RequestError: not of that form, no such method, or a value that will not do.
    """
    name, _, options = method.strip().partition(":")
    shared = base.model_dump(mode="json", include=_SHARED)
    return read_super_resolution_request(shared | {"method": name} | _settings_in(options, method))


def _settings_in(options: str, method: str) -> dict[str, object]:
    settings: dict[str, object] = {}
    for part in parts_of(options):
        name, sign, value = (each.strip() for each in part.partition("="))
        if not sign or name in _APART:
            raise RequestError(
                f"{part[:60]!r} in {method[:60]!r} will not do.",
                field="method",
                value=method,
                way_out="Write pocket:restore=true; clip and scale are the same for all methods.",
            )
        settings[name] = value_of(value)
    return settings


def source_of(clip: FileReference, *, scale: int) -> SourceRecord:
    """What is known of a clip that is to be enlarged by whatever method. Raises StudioError, as `look_at` does."""
    return look_at(_plain(clip, scale))


def paired(
    clips: Sequence[FileReference], originals: Sequence[FileReference], *, scale: int
) -> list[tuple[FileReference, FileReference | None]]:
    """Each clip with its original, if there is one: that of the same name, or the only one whose size and number of
    pictures are what the clip's become.

    Raises:
        StudioError: a file is none that is read; or an original belongs to no clip, or might to several.
    """
    found: dict[int, FileReference] = {}
    requests = [_plain(clip, scale) for clip in clips]
    sources = [look_at(request) for request in requests]
    for original in originals:
        named = [place for place, clip in enumerate(clips) if clip.path.stem == original.path.stem]
        fitting = named or [place for place, each in enumerate(requests) if _fits(original, each, sources[place])]
        free = [place for place in fitting if place not in found]
        if len(free) != 1:
            several = ", ".join(clips[place].path.name for place in free)
            raise RequestError(
                f"{original.path.name} fits {'none of the clips' if not free else several}.",
                field="original",
                value=original.path.name,
                way_out="Give it the name of the clip that was made from it.",
            )
        found[free[0]] = original
    return [(clip, found.get(place)) for place, clip in enumerate(clips)]


def _plain(clip: FileReference, scale: int) -> SuperResolutionRequest:
    return read_super_resolution_request({"source": clip, "scale": scale, "method": BICUBIC})


def _fits(original: FileReference, request: SuperResolutionRequest, source: SourceRecord) -> bool:
    try:
        check_original(original, request, source)
    except RequestError:
        return False
    return True


def begin_comparison(
    clips: Sequence[tuple[FileReference, FileReference | None]],
    methods: Sequence[str],
    *,
    scale: int,
    store: RunStore,
    owner: str = "local",
) -> EnlargementComparison:
    """Write down an enlargement of each clip by each method, those that are not stored, and the list of them all.

    What cannot be is said in the comparison's notices.

    Raises:
        StudioError: there is nothing to compare, too much, or nothing of it can be.
    """
    rows = list(dict.fromkeys(each.strip() for each in methods))
    if not clips or not rows:
        raise RequestError(
            "There is no clip yet." if not clips else "No method is chosen.",
            field="source" if not clips else "method",
            way_out="Give one or more.",
        )
    if len(clips) * len(rows) > MOST_COMPARED:
        raise RequestError(
            f"{len(clips)} clips by {len(rows)} methods are {len(clips) * len(rows)} enlargements; at most "
            f"{MOST_COMPARED} are compared.",
            field="method",
            value=len(clips) * len(rows),
            way_out="Leave out clips or methods.",
        )
    made: list[str] = []
    refusals: list[tuple[str, StudioError]] = []
    for clip, original in clips:
        for method in rows:
            try:
                base = _plain(clip, scale)
                made.append(begun(request_by(method, base), store=store, owner=owner, original=original).id)
            except StudioError as error:
                refusals.append((f"{clip.path.name} by {method}: {error}", error))
    if not made:
        raise refusals[0][1]
    notices = [words for words, _ in refusals]
    return EnlargementComparisonStore(store.folder).begin(made, notices=notices, owner=owner)


def enlargements_of(comparison: EnlargementComparison, store: RunStore) -> list[Enlargement]:
    """As they stand, in the comparison's order; those that were deleted are left out."""
    every = {each.id: each for each in EnlargementStore(store.folder).list(owner=comparison.owner)}
    return [every[each] for each in comparison.enlargements if each in every]


def _asks_the_same(one: SuperResolutionRequest, other: SuperResolutionRequest) -> bool:
    """The same of the same clip, wherever it lies."""
    return one.source.sha256 == other.source.sha256 and _settings(one) == _settings(other)


def _settings(request: SuperResolutionRequest) -> dict[str, object]:
    return request.model_dump(exclude={"source"})
