"""`drive`: what of a clip is to hold becomes maps, and a new clip follows them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studio.command_line.generating import add_adapter_and_cache, check_output, make_clip, promoted_version, typed_cache
from studio.command_line.grammar import Commands, add_command, add_fields, add_runs_folder, typed_fields
from studio.command_line.mapping import BOX, follow_map_set
from studio.errors import RequestError
from studio.requests.checks import CONDITIONS
from studio.requests.generation import GenerationRequest

if TYPE_CHECKING:
    from studio.drive.following import Followed
    from studio.preset import Preset
    from studio.records.runs import RunStore

_MADE_HERE = ("preset", "cache", "source", "control", "control_strengths")
"""Fields that follow from other flags."""
_SPELLED_HERE = (*_MADE_HERE, "prompt", "adapter")
"""Fields whose flags say more than the field does."""


def add_drive(commands: Commands) -> None:
    parser = add_command(commands, "drive", _drive, "make a clip that follows another one: its edges, lanes, depth, …")
    parser.add_argument(
        "followed", metavar="CLIP|MAPS", help="a clip; an .npz of maps; or the id of maps that `map-sets` lists"
    )
    parser.add_argument("--prompt", required=True, help="what is to be seen")
    parser.add_argument(
        "--control",
        metavar="MAP[:STRENGTH],…",
        help="what is to hold, and how closely, 0 to 1, such as edges,lanes:0.7 "
        "(default: edges and lanes of a clip; of maps, all that there are)",
    )
    parser.add_argument("--preset", "--model", help="name of the preset (default: the first that follows maps)")
    begun = parser.add_mutually_exclusive_group()
    begun.add_argument("--first-frame", type=Path, metavar="PICTURE", help="a picture that the clip begins with")
    begun.add_argument("--continue", dest="continued", type=Path, metavar="CLIP", help="a clip that is gone on with")
    add_fields(parser, GenerationRequest, leave_out=_SPELLED_HERE)
    parser.add_argument("--start", metavar="SECONDS", help="of the clip, before the first frame that is followed")
    parser.add_argument("--box", action="append", default=[], metavar=BOX, help="a thing to be followed, as in `maps`")
    add_adapter_and_cache(parser)
    parser.add_argument("-o", "--output", type=Path, help="copy the clip here")
    add_runs_folder(parser)


def _drive(chosen: argparse.Namespace) -> int:
    from studio.drive.following import proposed
    from studio.machine.weights import folder_of
    from studio.records.runs import RunStore, runs_folder
    from studio.requests.checks import check_request
    from studio.requests.fields import defaults_of
    from studio.requests.generation import new_seed, read_request

    preset = _preset(chosen.preset)
    store = RunStore(chosen.runs or runs_folder())
    apart = {"preset": preset.name, "seed": new_seed(), "adapter": promoted_version(chosen, preset)}
    usual, typed = defaults_of(preset, GenerationRequest) | apart, _typed(chosen)
    # Whatever is wrong besides the maps is said before any are made.
    besides = {name: value for name, value in typed.items() if CONDITIONS.get(name) != "control"}
    check_request(read_request(usual | besides), preset)
    check_output(chosen.output)
    folder_of(preset)
    followed = _followed(chosen, store, read_request(usual | typed))
    request = read_request(usual | proposed(preset, followed) | typed)
    check_request(request, preset)
    return make_clip(request, store=store, output=chosen.output, as_json=chosen.json)


def _preset(name: str | None) -> Preset:
    from studio.drive.following import check_driver, drivers
    from studio.preset import find_preset

    if name is not None:
        preset = find_preset(name)
        check_driver(preset)
        return preset
    known = drivers()
    if not known:
        raise RequestError("No preset follows maps.", field="--preset", way_out="Put one into the presets' folder.")
    return known[0]


def _typed(chosen: argparse.Namespace) -> dict[str, Any]:
    """What was typed for fields of the request."""
    from studio.clips.reference import reference_to
    from studio.drive.following import CONTINUED

    typed = typed_fields(chosen, GenerationRequest, leave_out=_MADE_HERE) | typed_cache(chosen)
    if chosen.control is not None:
        typed["control_strengths"] = chosen.control
    if chosen.first_frame is not None:
        typed["source"] = reference_to(chosen.first_frame, field="--first-frame")
    if chosen.continued is not None:
        typed = {"kept_frames": CONTINUED, "source": reference_to(chosen.continued, field="--continue")} | typed
    return typed


def _followed(chosen: argparse.Namespace, store: RunStore, request: GenerationRequest) -> Followed:
    """The maps that are named, or those of the clip, which are made now.

    Args:
        request: As far as it is known before there are maps.
    """
    from studio.clips.map_files import is_file_of_maps
    from studio.drive.following import of_file, of_map_set
    from studio.records.map_sets import MapSetStore

    path = Path(chosen.followed)
    is_clip = path.is_file() and not is_file_of_maps(path)
    if not is_clip and (chosen.start is not None or chosen.box):
        raise RequestError(
            "Maps that are there begin where they begin, and have their boxes.",
            field="--start" if chosen.start is not None else "--box",
            way_out="Leave it out, or name the clip.",
        )
    if is_clip:
        return of_map_set(_made(chosen, store, request), store=store)
    if path.is_file():
        return of_file(path)
    if path.suffix or not MapSetStore(store.folder).path(chosen.followed).is_dir():
        raise RequestError(
            f"There is no file {chosen.followed}, and no map set of that id.",
            field="followed",
            value=chosen.followed,
            way_out="Name a clip, an .npz of maps, or an id that `python -m studio map-sets` lists.",
        )
    return of_map_set(chosen.followed, store=store)


def _made(chosen: argparse.Namespace, store: RunStore, request: GenerationRequest) -> str:
    """The id of a map set, made of the clip."""
    from studio.clips.reference import reference_to
    from studio.drive import begin
    from studio.drive.following import USUAL
    from studio.requests.maps import MOST_FRAMES, read_maps_request

    fields: dict[str, Any] = {
        "source": reference_to(Path(chosen.followed), field="followed"),
        "maps": tuple(name for name, strength in request.control_strengths.items() if strength) or USUAL,
        "num_frames": min(request.num_frames, MOST_FRAMES),
        "boxes": tuple(chosen.box),
    }
    if chosen.start is not None:
        fields["start"] = chosen.start
    map_set = begin(read_maps_request(fields), store=store)
    follow_map_set(map_set.id, store, as_json=chosen.json)
    return map_set.id
