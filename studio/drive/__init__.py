"""Drive: what of a clip is to hold becomes maps; a clip is asked for that follows them; vehicles are put into clips.

    map_set = begin(request, store=store)
    for event in make(MakeMaps(map_set_id=map_set.id), store=store, owner="local", stop=never):
        ...

A clip is measured without any weights, a seed of the driving world gives exact maps, and maps from elsewhere are taken
as they come: all three become one map set, an .npz of exact numbers with a control video for each map beside it.

    verb.py         what making maps is called by: begin, make, export
    following.py    what a clip that follows maps is asked for by
    inserting.py    a vehicle put into a clip: begin_insertion, insert
    vehicles.py     which vehicle, and where it stands
    making.py       how far a thing in the making went, as its record says
    frames.py       the stretch of a clip that is read

Knows the order of the work. Refuses to know how a map is found (`control_maps`), and who listens.
"""

from studio.drive.inserting import begin_insertion, insert, insert_vehicle
from studio.drive.verb import begin, export, make, make_maps

__all__ = ["begin", "begin_insertion", "export", "insert", "insert_vehicle", "make", "make_maps"]
