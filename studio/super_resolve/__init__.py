"""Super-resolve: a clip of any length becomes a larger one, at constant memory, and nothing but its pixels changes.

    enlargement = begin(request, store=store)
    for event in enlarge(EnlargeClip(enlargement_id=enlargement.id), store=store, owner="local", stop=never):
        ...

Pictures pass one at a time. They are kept in parts of `PART` pictures, each put in place whole: whoever is stopped or
killed goes on with the first part that is missing, and the file is the one that would have been. A method may look at
pictures before the one it enlarges, but only so many (`Upscaler.memory`): that makes a part depend on a stretch of the
clip and on nothing else, wherever the work began. When all parts are there they are put beside the clip's other
streams.

    verb.py          what is called: begin, forecast, enlarge
    walk.py          parts, one after the other, as a stream of events
    comparing.py     several methods on one clip or several
    over_clips.py    their figures beside one another, means over clips, and files
    measuring.py     what was made, held against the original and the clip that was given
    methods.py       how one picture becomes a larger one

Knows the order of the work. Refuses to know how films are read and written (`clips.film`), and who listens.
"""

from studio.metrics.enlargement import FIGURES
from studio.super_resolve.comparing import (
    begin_comparison,
    begun,
    beside,
    enlargements_of,
    is_done,
    paired,
    request_by,
    source_of,
)
from studio.super_resolve.over_clips import OverClips, files_of, front, over_clips
from studio.super_resolve.verb import (
    Forecast,
    begin,
    check_original,
    enlarge,
    forecast,
    hold_against,
    look_at,
    super_resolve,
)

__all__ = [
    "FIGURES",
    "Forecast",
    "OverClips",
    "begin",
    "begin_comparison",
    "begun",
    "beside",
    "check_original",
    "enlarge",
    "enlargements_of",
    "files_of",
    "forecast",
    "front",
    "hold_against",
    "is_done",
    "look_at",
    "over_clips",
    "paired",
    "request_by",
    "source_of",
    "super_resolve",
]
