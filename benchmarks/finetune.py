"""What fine-tuning brings, by objective and by the way through the decoder: `python benchmarks/finetune.py`.

The pocket model learns two sets of clips that it has not seen: a style of the driving world that was held out from its
training (the desert), and a real road clip, where one is given with --road (its first frames are trained on, the rest
measured on; the project ships none). Equal steps, equal seeds, the same samples at the same noise in the same order:

- latent: the flow-matching loss alone;
- pixel through full backpropagation, exact (chunk by chunk), truncated with (window, context) (1, 1) and (1, 0);
- mixed: latent and pixel, exact.

Scored on held-out samples, denoised in one step at three noise levels: PSNR of decoded frames, the pixel loss, and the
flow-matching loss, against the model as it came. Versions are kept in the results folder's `finetune-runs`, outside of
git, so that it goes on where it stopped; the table is written from them, and into README between its two marks.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from marked import write_between

from studio.clips.clip import Clip
from studio.clips.read import read_clip
from studio.clips.write import write_clip
from studio.events import TrainingFinished, TrainingForecast
from studio.finetune import finetune
from studio.preset import find_preset
from studio.records.runs import RunStore
from studio.records.versions import Version, VersionStore
from studio.requests.training import FinetuneRequest, TrainingClip, finetune_request_for

WAYS: dict[str, dict[str, Any]] = {
    "latent": {"objective": "latent"},
    "pixel, full backpropagation": {"objective": "pixel", "mode": "full"},
    "pixel, exact": {"objective": "pixel", "mode": "exact"},
    "pixel, truncated (1, 1)": {"objective": "pixel", "mode": "truncated", "window": 1, "context": 1},
    "pixel, truncated (1, 0)": {"objective": "pixel", "mode": "truncated", "window": 1, "context": 0},
    "mixed, exact": {"objective": "mixed", "mode": "exact"},
}
DESERT_SEEDS = range(7000, 7012)
DESERT_HELD_OUT = range(8000, 8004)
ROAD_TRAINED_ON = 150
"""Frames of the road clip that may be trained on; the rest is for measuring only."""
ROAD_CAPTION = "A dashcam view of a straight three-lane road by day, under a clear sky."
MARKS = ("<!-- finetune -->", "<!-- /finetune -->")
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    from studio.machine.threads import wait_passively

    wait_passively()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--road", type=Path, help="a real road clip")
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--only", nargs="+", choices=WAYS, help="ways to train")
    parser.add_argument("--runs", type=Path, default=RESULTS / "finetune-runs")
    parser.add_argument("--write-only", action="store_true", help="no training: the table from what is there")
    args = parser.parse_args()
    args.runs.mkdir(parents=True, exist_ok=True)
    store = RunStore(args.runs)
    sets = {"desert": desert(args.runs)} | ({"road": road(args.road, args.runs)} if args.road else {})
    rows = []
    for name, clips in sets.items():
        for way, fields in WAYS.items():
            request = request_for_way(f"{name}: {way}", clips, args.steps, fields)
            version = done(store, request)
            if version is None and not args.write_only and way in (args.only or WAYS):
                version = train(request, store)
            if version is not None:
                rows.append(row_of(name, way, version, store))
    write(rows, args.steps)


def request_for_way(title: str, clips: tuple[TrainingClip, ...], steps: int, fields: dict[str, Any]) -> FinetuneRequest:
    return finetune_request_for(
        find_preset("pocket"),
        clips=clips,
        title=title,
        max_train_steps=steps,
        validation_steps=10**6,
        keep_caches="device",
        **fields,
    )


def desert(folder: Path) -> tuple[TrainingClip, ...]:
    """Rendered clips of a style that the pocket model's training never drew."""
    from studio.driving_world import caption, render, sample_scene

    clips = []
    for seed in (*DESERT_SEEDS, *DESERT_HELD_OUT):
        scene = sample_scene(seed, style="desert")
        path = folder / f"desert-{seed}.mp4"
        if not path.is_file():
            write_clip(render(scene), path)
        held_out = seed in DESERT_HELD_OUT
        clips.append(
            TrainingClip(
                path=path,
                caption=caption(scene),
                origin="studio.driving_world",
                licence="Apache-2.0",
                held_out=held_out,
            )
        )
    return tuple(clips)


def road(path: Path, folder: Path) -> tuple[TrainingClip, ...]:
    """A real clip in two: what is trained on, and what is measured on."""
    loaded = read_clip(path).clip
    clips = []
    for name, part in (("train", slice(0, ROAD_TRAINED_ON)), ("measure", slice(ROAD_TRAINED_ON, None))):
        piece = folder / f"road-{name}.mp4"
        if not piece.is_file():
            write_clip(Clip(frames=loaded.frames[part], fps=loaded.fps), piece)
        clips.append(TrainingClip(path=piece, caption=ROAD_CAPTION, held_out=name == "measure"))
    return tuple(clips)


def done(store: RunStore, request: FinetuneRequest) -> Version | None:
    return next(
        (each for each in VersionStore(store.folder).list() if each.state == "complete" and each.request == request),
        None,
    )


def train(request: FinetuneRequest, store: RunStore) -> Version:
    forecast: dict[str, int] = {}
    version_id = ""
    for event in finetune(request, store=store):
        if isinstance(event, TrainingForecast):
            forecast = {"held": event.decoder_bytes, "full": event.full_decoder_bytes}
        elif isinstance(event, TrainingFinished):
            version_id = event.version_id
    versions = VersionStore(store.folder)
    (versions.path(version_id) / "forecast.json").write_text(json.dumps(forecast), encoding="utf-8")
    version = versions.get(version_id)
    print(request.title, version.base_scores, version.scores, f"{version.seconds:.0f} s", flush=True)
    return version


def row_of(name: str, way: str, version: Version, store: RunStore) -> dict[str, Any]:
    assert version.scores is not None
    assert version.base_scores is not None
    held = json.loads((VersionStore(store.folder).path(version.id) / "forecast.json").read_text(encoding="utf-8"))
    return {
        "clips": name,
        "way": way,
        "psnr": version.scores.psnr,
        "base_psnr": version.base_scores.psnr,
        "pixel": version.scores.pixel,
        "base_pixel": version.base_scores.pixel,
        "latent": version.scores.latent,
        "base_latent": version.base_scores.latent,
        "decoder_bytes": held["held"],
    }


def write(rows: list[dict[str, Any]], steps: int) -> None:
    """The table, as Markdown and JSON, and into README."""
    lines = [
        f"One-step denoised frames of held-out samples, {steps} steps of training each.",
        "",
        "| clips | trained by | PSNR | gain | pixel loss | flow matching | held for the decoder |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        held = f"{row['decoder_bytes'] / 1e6:.0f} MB" if row["decoder_bytes"] else "–"
        lines.append(
            f"| {row['clips']} | {row['way']} | {row['psnr']:.2f} dB | {row['psnr'] - row['base_psnr']:+.2f} dB "
            f"| {row['base_pixel']:.4f} → {row['pixel']:.4f} | {row['base_latent']:.4f} → {row['latent']:.4f} "
            f"| {held} |"
        )
    table = "\n".join(lines)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "finetune.md").write_text(f"# What fine-tuning brings\n\n{table}\n", encoding="utf-8")
    (RESULTS / "finetune.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    write_between(Path(__file__).parents[1] / "README.md", MARKS, table)
    print(table)


if __name__ == "__main__":
    main()
