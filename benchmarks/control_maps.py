"""Control maps without weights: how well each is found, in worlds whose maps are exact and in a real road clip.

    python benchmarks/control_maps.py                     # held-out worlds alone
    python benchmarks/control_maps.py --clip road.mp4     # and a real clip of a drive, with a contact sheet

In worlds every figure is held against the exact map: F1 of edges and lanes at tolerances of 0 and 1 pixel (lanes also
within the road alone), intersection over union of road and sky, the median ratio of depth on the road, end-point error
of flow where it is trusted and everywhere, distance of the centre of expansion, sign of turning, and overlap of boxes
that are followed from the first frame, beside OpenCV's TrackerMIL. A real clip has no exact maps: there it is how often
both lines of our lane are found, how far the point that they meet at lies from where the motion leads to, how much of
the flow is trusted, and how steady road and sky are. Seconds are of one core's work, by the process's own clock. Writes
results/control_maps.md, .json and, of a clip, .png; what was measured before of the other part is left there.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np

from studio.clips.clip import Clip
from studio.clips.control_maps import TITLES, Box, ControlMaps, MapName
from studio.control_maps import DrawnBox, Extraction, extract, lanes, over, painted
from studio.control_maps.regions import ROAD, SKY
from studio.drive.frames import read_stretch
from studio.driving_world import VEHICLE_TYPES, render_with_maps, sample_scene
from studio.driving_world.camera import Camera
from studio.machine import hardware
from studio.requests.maps import USUAL
from studio.storage import write_atomically

RESULTS = Path(__file__).parent / "results"
REPORT = RESULTS / "control_maps.json"
HEIGHT, WIDTH, FRAMES, FPS = 256, 448, 9, 12.0
FIRST_SEED = 900
"""Of worlds that no model here was trained on."""
CLIP_FRAMES = 40
FOLLOWED_FRAMES = 17
NAMES: tuple[MapName, ...] = USUAL


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--worlds", type=int, default=24, help="how many; 0 leaves them out")
    parser.add_argument("--clip", type=Path, help="a real clip of a drive")
    parser.add_argument("--box", default="", help="LEFT,TOP,RIGHT,BOTTOM of a vehicle in the clip's first frame")
    chosen = parser.parse_args()
    cv2.setNumThreads(1)
    report: dict[str, Any] = json.loads(REPORT.read_text(encoding="utf-8")) if REPORT.is_file() else {}
    report |= {"machine": hardware.measure().cpu_name, "opencv": cv2.__version__}
    if chosen.worlds:
        report["worlds"] = _worlds(chosen.worlds)
    if chosen.clip is not None:
        report["clip"] = _real(chosen.clip, chosen.box)
    RESULTS.mkdir(exist_ok=True)
    write_atomically(REPORT, json.dumps(report, indent=1).encode())
    page = _page(report)
    write_atomically(RESULTS / "control_maps.md", page.encode())
    print(page)


def _extracted(
    clip: Clip, names: tuple[MapName, ...], *, drawn: tuple[DrawnBox, ...] = (), focal: float | None = None
) -> tuple[Extraction, dict[str, float]]:
    """And milliseconds a frame of one core, by map. What a map leans on is counted where it is made."""
    work = extract(clip.frames, fps=clip.fps, names=names, drawn=drawn, focal=focal)
    spent: dict[str, float] = {}
    before = time.process_time()
    while True:
        try:
            progress = next(work)
        except StopIteration as ended:
            return ended.value, {name: 1000 * seconds / clip.num_frames for name, seconds in spent.items()}
        now = time.process_time()
        spent[progress.what] = spent.get(progress.what, 0.0) + now - before
        before = now


# -- worlds -----------------------------------------------------------------------------------------------------------


def _worlds(count: int) -> dict[str, Any]:
    kinds = {"by day, clear": {"time_of_day": "day", "weather": "clear"}, "any hour and weather": {}}
    focal = Camera(height=HEIGHT, width=WIDTH).focal
    found: dict[str, Any] = {"count": count, "size": [WIDTH, HEIGHT, FRAMES]}
    for title, conditions in kinds.items():
        rows = []
        for seed in range(FIRST_SEED, FIRST_SEED + count):
            scene = sample_scene(seed, **conditions)
            clip, exact = render_with_maps(scene, height=HEIGHT, width=WIDTH, num_frames=FRAMES, fps=FPS)
            extraction, _ = _extracted(clip, NAMES, focal=focal)
            rows.append(_against(extraction.maps, exact))
        names = rows[0].keys()
        found[title] = {name: _middle([row[name] for row in rows]) for name in names}
        turns = [row["turn"] for row in rows if np.isfinite(row["turn"])]
        found[title]["turns"] = len(turns)
        found[title]["turn"] = float(np.mean(turns)) if turns else None
    found["boxes"] = _followed(count)
    return found


def _middle(values: list[float]) -> float | None:
    known = [value for value in values if np.isfinite(value)]
    return float(np.median(known)) if known else None


def _against(found: ControlMaps, exact: ControlMaps) -> dict[str, float]:
    assert found.edges is not None
    assert exact.edges is not None
    assert found.lane_lines is not None
    assert exact.lane_lines is not None
    assert found.depth is not None
    assert exact.depth is not None
    assert found.optical_flow is not None
    assert exact.optical_flow is not None
    assert found.optical_flow_known is not None
    assert found.expansion_centre is not None
    assert exact.expansion_centre is not None
    assert found.ego_motion is not None
    assert exact.ego_motion is not None
    road, sky = _labelled(exact, "road", "lane_line", "road_marking"), _labelled(exact, "sky")
    error = np.linalg.norm(found.optical_flow - exact.optical_flow, axis=-1)[:-1]
    known = found.optical_flow_known[:-1]
    on_road = road & (found.semantic == ROAD) & (exact.depth < 60)
    off = np.linalg.norm(found.expansion_centre - exact.expansion_centre, axis=-1)
    turning = np.abs(exact.ego_motion[:, 1]) > 0.03
    signs = np.sign(found.ego_motion[turning, 1]) == np.sign(exact.ego_motion[turning, 1])
    nothing = float("nan")
    return {
        "edges F1 (1 px)": _f1(found.edges, exact.edges, 1),
        "edges F1 (0 px)": _f1(found.edges, exact.edges, 0),
        "lanes F1 (1 px)": _f1(found.lane_lines, exact.lane_lines, 1),
        "lanes F1 (1 px), on the road": _f1(found.lane_lines * road, exact.lane_lines, 1),
        "road IoU": _iou(found.semantic == ROAD, road),
        "sky IoU": _iou(found.semantic == SKY, sky) if sky.any() else nothing,
        "depth on the road, ratio": float(np.median((found.depth / exact.depth)[on_road]))
        if on_road.any()
        else nothing,
        "flow error where trusted, px": float(error[known].mean()) if known.any() else nothing,
        "flow error everywhere, px": float(error.mean()),
        "true flow, px": float(np.linalg.norm(exact.optical_flow[:-1], axis=-1).mean()),
        "flow trusted, share": float(known.mean()),
        "centre of expansion off, px": float(np.nanmedian(off)) if np.isfinite(off).any() else nothing,
        "turn": float(signs.mean()) if turning.any() else nothing,
    }


def _ratio(found: np.ndarray, exact: np.ndarray, where: np.ndarray) -> float:
    return float(np.median(found[where] / exact[where])) if where.any() else float("nan")


def _labelled(maps: ControlMaps, *labels: str) -> np.ndarray:
    assert maps.semantic is not None
    return np.isin(maps.semantic, [maps.semantic_labels.index(label) for label in labels])


def _f1(one: np.ndarray, other: np.ndarray, tolerance: int) -> float:
    """NaN where the exact map is empty."""
    if not other.any():
        return float("nan")
    kernel = np.ones((2 * tolerance + 1,) * 2, np.uint8)
    first, second = one > 0, other > 0
    wide = [np.stack([cv2.dilate(each.astype(np.uint8), kernel) for each in mask]) > 0 for mask in (first, second)]
    precision = (first & wide[1]).sum() / max(1, first.sum())
    recall = (second & wide[0]).sum() / max(1, second.sum())
    return float(2 * precision * recall / max(1e-9, precision + recall))


def _iou(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / max(1, (one | other).sum()))


def _followed(count: int) -> dict[str, Any]:
    """Vehicles that are wholly seen in the first frame, followed to the last: overlap with the exact box."""
    ours, theirs = [], []
    for seed in range(FIRST_SEED, FIRST_SEED + count):
        scene = sample_scene(seed, time_of_day="day", weather="clear")
        clip, exact = render_with_maps(scene, height=HEIGHT, width=WIDTH, num_frames=FOLLOWED_FRAMES, fps=FPS)
        assert exact.boxes is not None
        for box in exact.boxes[0]:
            inside = box.left > 2 and box.right < WIDTH - 2 and box.width >= 24
            if box.label not in VEHICLE_TYPES or not inside or box.visible_fraction < 0.9:
                continue
            maps = _extracted(clip, ("boxes",), drawn=(DrawnBox(frame=0, box=box),))[0].maps
            assert maps.boxes is not None
            track = [frame[0] if frame else None for frame in maps.boxes]
            ours += _overlaps(track, exact.boxes, box.instance_id)
            theirs += _overlaps(_by_mil(clip, box), exact.boxes, box.instance_id)
    return {
        "frames": len(ours),
        "ours": float(np.mean(ours)),
        "ours over 0.5": float(np.mean(np.array(ours) > 0.5)),
        "TrackerMIL": float(np.mean(theirs)),
        "TrackerMIL over 0.5": float(np.mean(np.array(theirs) > 0.5)),
    }


def _overlaps(track: list[Box | None], exact: tuple[tuple[Box, ...], ...], number: int) -> list[float]:
    overlaps = []
    for found, frame in zip(track[1:], exact[1:], strict=True):
        there = next((box for box in frame if box.instance_id == number), None)
        if there is None or there.visible_fraction < 0.5:
            continue
        overlaps.append(0.0 if found is None else _box_iou(found, there))
    return overlaps


def _box_iou(one: Box, other: Box) -> float:
    width = min(one.right, other.right) - max(one.left, other.left)
    height = min(one.bottom, other.bottom) - max(one.top, other.top)
    shared = max(0.0, width) * max(0.0, height)
    return shared / (one.width * one.height + other.width * other.height - shared)


def _by_mil(clip: Clip, box: Box) -> list[Box | None]:
    tracker = cv2.TrackerMIL.create()
    tracker.init(clip.frames[0].copy(), [round(each) for each in (box.left, box.top, box.width, box.height)])
    track: list[Box | None] = [box]
    for frame in clip.frames[1:]:
        there, (left, top, width, height) = tracker.update(frame.copy())
        found = Box(
            instance_id=box.instance_id, label=box.label, left=left, top=top, right=left + width, bottom=top + height
        )
        track.append(found if there else None)
    return track


# -- a real clip ------------------------------------------------------------------------------------------------------


def _real(path: Path, box: str) -> dict[str, Any]:
    clip = read_stretch(path, start=0, num_frames=CLIP_FRAMES).clip
    drawn: tuple[DrawnBox, ...] = ()
    names: tuple[MapName, ...] = NAMES
    if box:
        left, top, right, bottom = (float(number) for number in box.split(","))
        first = Box(instance_id=1, label="car", left=left, top=top, right=right, bottom=bottom)
        drawn, names = (DrawnBox(frame=0, box=first),), (*NAMES, "boxes")
    extraction, spent = _extracted(clip, names, drawn=drawn)
    maps = extraction.maps
    assert maps.expansion_centre is not None
    assert maps.optical_flow_known is not None
    assert maps.ego_motion is not None
    own = np.stack([lanes.lanes(frame).own for frame in clip.frames])
    meeting = lanes.vanishing_points(own, height=clip.height)
    _contact_sheet(clip, maps, RESULTS / "control_maps.png")
    road, sky = maps.semantic == ROAD, maps.semantic == SKY
    speed = maps.ego_motion[:, 0]
    return {
        "name": path.name,
        "size": [clip.width, clip.height, clip.num_frames, clip.fps],
        "both lines": int(np.isfinite(own[..., 0]).all(axis=1).sum()),
        "foot jitter": [float(np.nanmedian(np.abs(np.diff(own[:, side, 0])))) for side in (0, 1)],
        "lanes meet": _spread(meeting),
        "motion leads to": _spread(maps.expansion_centre),
        "turn": [float(np.nanmin(maps.ego_motion[:, 1])), float(np.nanmax(maps.ego_motion[:, 1]))],
        "speed told": int(np.isfinite(speed).sum()),
        "speed": _spread(speed[:, None]),
        "flow trusted": float(maps.optical_flow_known[:-1].mean()),
        "flow trusted, road": float(maps.optical_flow_known[:-1][road[:-1]].mean()),
        "road": {"share": float(road.mean()), "steady": _steadiness(road)},
        "sky": {"share": float(sky.mean()), "steady": _steadiness(sky)},
        "boxes": sum(bool(frame) for frame in maps.boxes) if maps.boxes is not None else None,
        "milliseconds": spent,
        "notices": list(extraction.notices),
    }


def _spread(points: np.ndarray) -> list[list[float]]:
    """Median and standard deviation of each column."""
    return [[float(np.nanmedian(column)), float(np.nanstd(column))] for column in points.T]


def _steadiness(mask: np.ndarray, apart: int = 8) -> float:
    """Mean intersection over union with the frame so many later."""
    return float(np.mean([_iou(mask[frame], mask[frame + apart]) for frame in range(len(mask) - apart)]))


def _contact_sheet(clip: Clip, maps: ControlMaps, path: Path) -> None:
    """Three moments, each map over the clip, five beside one another, with its name."""
    width, height = 256, round(256 * clip.height / clip.width)
    rows = []
    for frame in (0, clip.num_frames // 2, clip.num_frames - 2):
        shown = [("Clip", clip.frames[frame])]
        shown += [
            (TITLES[name], over(clip.frames[frame : frame + 1], painted(maps, name)[frame : frame + 1])[0])
            for name in maps.names
        ]
        tiles = [_titled(cv2.resize(each, (width, height), interpolation=cv2.INTER_AREA), name) for name, each in shown]
        tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % 5)
        rows += [np.hstack(tiles[first : first + 5]) for first in range(0, len(tiles), 5)]
    done, encoded = cv2.imencode(".png", np.vstack(rows)[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])
    assert done
    write_atomically(path, encoded.tobytes())


def _titled(tile: np.ndarray, title: str) -> np.ndarray:
    tile = np.ascontiguousarray(tile)
    for colour, thick in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        cv2.putText(tile, title, (6, tile.shape[0] - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.45, colour, thick, cv2.LINE_AA)
    return tile


# -- the page ---------------------------------------------------------------------------------------------------------


def _page(report: dict[str, Any]) -> str:
    parts = [
        "# Control maps without weights",
        f"By `python benchmarks/control_maps.py`, OpenCV {report['opencv']}, on {report['machine']}.",
    ]
    if "worlds" in report:
        parts += _page_of_worlds(report["worlds"])
    if "clip" in report:
        parts += _page_of_clip(report["clip"])
    return "\n\n".join(parts) + "\n"


def _page_of_worlds(found: dict[str, Any]) -> list[str]:
    width, height, frames = found["size"]
    kinds = [name for name in found if name not in ("count", "size", "boxes")]
    lines = [f"| | {' | '.join(kinds)} |", f"| --- |{' --- |' * len(kinds)}"]
    for name in found[kinds[0]]:
        if name == "turns":
            continue
        title = "sign of turning right, share of frames" if name == "turn" else name
        lines.append(f"| {title} | {' | '.join(_number(found[kind][name]) for kind in kinds)} |")
    boxes = found["boxes"]
    return [
        "## In worlds, against exact maps",
        f"{found['count']} held-out worlds at {width}×{height}, {frames} frames each; medians over worlds "
        f"(turning: the mean over the {found[kinds[0]]['turns']} worlds that turn by day).",
        "\n".join(lines),
        f"Boxes that are followed from the first frame, mean overlap over {boxes['frames']} frames: "
        f"**{boxes['ours']:.2f}** ({100 * boxes['ours over 0.5']:.0f} % over 0.5); OpenCV's TrackerMIL "
        f"{boxes['TrackerMIL']:.2f} ({100 * boxes['TrackerMIL over 0.5']:.0f} %).",
    ]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _page_of_clip(found: dict[str, Any]) -> list[str]:
    width, height, frames, fps = found["size"]
    (lane_x, lane_y), (motion_x, motion_y) = found["lanes meet"], found["motion leads to"]
    rows = [
        ("both lines of our lane", f"{found['both lines']} of {frames} frames"),
        (
            "their feet, from frame to frame",
            f"{found['foot jitter'][0]:.1f} and {found['foot jitter'][1]:.1f} px (median)",
        ),
        ("they meet at", f"({lane_x[0]:.0f} ± {lane_x[1]:.0f}, {lane_y[0]:.0f} ± {lane_y[1]:.0f})"),
        ("the motion leads to", f"({motion_x[0]:.0f} ± {motion_x[1]:.0f}, {motion_y[0]:.0f} ± {motion_y[1]:.0f})"),
        ("turning", f"{found['turn'][0]:.3f} to {found['turn'][1]:.3f} radians a second"),
        (
            "speed",
            f"{found['speed'][0][0]:.0f} ± {found['speed'][0][1]:.0f} m/s with an eye at 1.5 m, told in "
            f"{found['speed told']} of {frames} frames",
        ),
        (
            "flow that can be trusted",
            f"{100 * found['flow trusted']:.0f} % of all pixels, "
            f"{100 * found['flow trusted, road']:.0f} % of the road's",
        ),
    ]
    rows += [
        (name, f"{100 * found[name]['share']:.0f} % of the picture, IoU {found[name]['steady']:.2f} eight frames later")
        for name in ("road", "sky")
    ]
    if found["boxes"] is not None:
        rows.append(("a car that was drawn", f"followed through {found['boxes']} of {frames} frames"))
    spent = ", ".join(f"{TITLES[name].lower()} {value:.0f}" for name, value in found["milliseconds"].items())
    return [
        "## In a real clip",
        f"`{found['name']}`, {width}×{height}, {frames} frames at {fps:.4g} a second. No map of it is exact.",
        "\n".join(["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows)]),
        f"Milliseconds a frame of one core: {spent}. Depth and regions lean on lanes and motion, which are counted as "
        "their own.",
        "![Each map over three frames of the clip](control_maps.png)",
    ]


if __name__ == "__main__":
    main()
