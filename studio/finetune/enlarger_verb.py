"""What fine-tuning a model that enlarges begins with. Loads nothing; `enlarger` trains.

Knows what must be so before a training begins. Refuses to know how it goes.
"""

from __future__ import annotations

from studio.clips.reference import check_unchanged
from studio.machine import weights
from studio.records.enlarger_versions import EnlargerVersion, EnlargerVersionStore
from studio.records.runs import RunStore
from studio.requests.enlarger_training import EnlargerTraining, check_enlarger_training


def begin(request: EnlargerTraining, *, store: RunStore, owner: str = "local") -> EnlargerVersion:
    """Write a new version down, for `train`. Loads nothing.

    Raises:
        StudioError: the model cannot be fine-tuned or is not here, a clip has changed, or there is no room.
    """
    weights.folder_of(check_enlarger_training(request))
    for clip in request.clips:
        check_unchanged(clip, field="clips")
    return EnlargerVersionStore(store.folder).begin(request, owner=owner)
