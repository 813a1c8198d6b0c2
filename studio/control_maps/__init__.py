"""Control maps: what a clip shows, measured without any weights, in NumPy and OpenCV alone.

    extraction = yield from extract(frames, fps=25, names=("edges", "lane_lines"))
    fitted(extraction.maps, height=480, width=832, num_frames=81)

    edges layout lanes flow ego_motion regions depth following     one map a file
    extraction.py        all of them, in their order
    fitting.py           exactly so high, so wide and so long, and what was done for it
    painting.py          as pictures

    control_videos.py    as films, and films from elsewhere

Exact numbers on the disk are `studio.clips.map_files`.

The exact maps of the driving world are of the same type (`studio.clips.control_maps`), and go the same ways. Refuses to
know torch, models and who is asking.
"""

from studio.control_maps.control_videos import read_control_video, write_control_video
from studio.control_maps.extraction import Extraction, Progress, extract
from studio.control_maps.fitting import Fitted, fitted
from studio.control_maps.following import DrawnBox
from studio.control_maps.painting import over, painted, painted_together

__all__ = [
    "DrawnBox",
    "Extraction",
    "Fitted",
    "Progress",
    "extract",
    "fitted",
    "over",
    "painted",
    "painted_together",
    "read_control_video",
    "write_control_video",
]
