"""Drive: what of a clip is to hold becomes maps, and a clip is asked for that follows them.

    map_set = begin(request, store=store)
    for event in make(MakeMaps(map_set_id=map_set.id), store=store, owner="local", stop=never):
        ...

A clip is measured without any weights, a seed of the driving world gives exact maps, and maps from elsewhere are taken
as they come: all three become one map set, an .npz of exact numbers with a control video for each map beside it.

    verb.py         what making maps is called by: begin, make, export
    following.py    what a clip that follows maps is asked for by
    frames.py       the stretch of a clip that is measured

Knows the order of the work. Refuses to know how a map is found (`control_maps`), and who listens.
"""

from studio.drive.verb import begin, export, make, make_maps

__all__ = ["begin", "export", "make", "make_maps"]
