"""`world` and `pocket`: scenes from seeds, and the model that learnt from them."""

from __future__ import annotations

import argparse
from pathlib import Path

from studio.command_line.grammar import Commands, add_command, print_json


def add_world(commands: Commands) -> None:
    parser = commands.add_parser("world", help="the driving world: render a scene from a seed")
    world = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    render = add_command(world, "render", _world_render, "render a scene to an mp4, with its control maps if asked")
    render.add_argument("--seed", type=int, required=True)
    render.add_argument("--height", type=int, default=256)
    render.add_argument("--width", type=int, default=256)
    render.add_argument("--num-frames", type=int, default=49)
    render.add_argument("--fps", type=float, default=12.0)
    render.add_argument("--maps", type=Path, metavar="FILE", help="write the control maps here, as .npz")
    render.add_argument("-o", "--output", type=Path, required=True)


def _world_render(chosen: argparse.Namespace) -> int:
    from studio import driving_world
    from studio.clips.map_files import write_maps
    from studio.clips.write import write_clip

    size = {name: getattr(chosen, name) for name in ("height", "width", "num_frames", "fps")}
    scene = driving_world.sample_scene(chosen.seed)
    if chosen.maps is None:
        clip = driving_world.render(scene, **size)
    else:
        clip, maps = driving_world.render_with_maps(scene, **size)
        write_maps(maps, chosen.maps)
    write_clip(clip, chosen.output, settings={"world": {"seed": chosen.seed, **size}, "caption": clip.caption})
    if chosen.json:
        print_json(
            {"output": str(chosen.output), "caption": clip.caption, "attributes": driving_world.attributes(scene)}
        )
    else:
        print(f"{chosen.output}: {clip.caption}")
    return 0


def add_pocket(commands: Commands) -> None:
    from studio.pocket import train as text_to_video
    from studio.pocket.driver import train as driver
    from studio.pocket.harmoniser import train as harmoniser
    from studio.pocket.super_resolver import train as super_resolver

    recipes = {
        "train": (text_to_video, "the text-to-video model from nothing"),
        "super-resolver": (super_resolver, "the super-resolver from nothing"),
        "harmoniser": (harmoniser, "the harmoniser from nothing"),
        "driver": (driver, "the driver, which follows maps, from the text-to-video model"),
    }
    parser = commands.add_parser("pocket", help="the pocket models: train them from nothing")
    pocket = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, (recipe, what) in recipes.items():
        one = pocket.add_parser(name, help=f"train {what}, or go on training it", description=f"Train {what}.")
        recipe.add_arguments(one)
        one.set_defaults(command=recipe.main)
