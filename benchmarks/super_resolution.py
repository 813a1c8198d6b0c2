"""What enlarging gains, and what it takes: `python benchmarks/super_resolution.py --clip road.mp4`.

A clip is made smaller and enlarged again, and held against what it was. Made smaller:
- *enlarge*: by bicubic interpolation that does not alias (`studio.clips.shrinking.shrunk`), rounded to 8 bits;
- *restore*: by blur, noise, other sizes and H.264 in random order (`studio.pocket.super_resolver.degradation`), drawn
  once from a fixed seed.

Figures are those of `studio.metrics.enlargement`, over all pictures: PSNR and SSIM (means over pictures), VMAF-NEG
(libvmaf), shrink-back (PSNR of the result, shrunk again, against what was given), flicker and warping error (ratios to
the original's own) and colour error (levels of 255). PSNR's gain is over bicubic (OpenCV's and torch's, a = -0.75;
Pillow's, a = -0.5, has a row of its own). CPU seconds are those of a picture in one thread, encoding apart.

HED distance is that of `perceptual`: over the middle 256×256 of every tenth picture, where its wheel is installed.

Rows: interpolations; Lanczos with three back-projections; the pocket's linear filter alone (L), with its network
(L + R), and as the studio runs it (L + R, back-projection); the same fine-tuned on other pictures of the clip
(--learn-from, at most five minutes; the model that ships has seen none of them); where clips are restored, L + R + g D
for two g. What others enlarge with has rows where its wheels are installed (`enlarging_rivals`); the text says why one
is missing.

Clips: a real one, where one is given (--first and --last say which of its pictures; the project ships none), pans over
held-out photographs (--photographs, as `pocket super-resolver` has it), and renders of held-out worlds. Speed: pictures
a second with every core, to 960×540. Memory: the most that `python -m studio upscale` has resident for 48 and for 240
pictures, the reading process apart. Writes results/super_resolution.md and .json, a contact sheet, and README's part
between its marks.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from enlarging_rivals import rivals
from marked import write_between
from perceptual import hed_distance, middle, why_not

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
RESULTS = ROOT / "benchmarks/results"
MARKS = ("<!-- super-resolution -->", "<!-- /super-resolution -->")
WORLD_SEEDS = range(5)
"""Held-out worlds that are rendered large."""
TASKS = ("enlarge", "restore")
WEIGHTS_OF_D = (0.5, 1.0)
"""g, of what is restored."""
MEASURED = ("psnr", "ssim", "vmaf_neg", "shrink_back", "flicker", "warping_error", "colour_error")
JUDGED_EVERY = 10
"""Pictures from one whose HED distance is measured to the next."""
LEARNING_MINUTES = 5.0
SHOWN = ("bicubic", "Lanczos + back-projection", "L + R, back-projection")
"""On the contact sheet, between what was given and the original."""
Row = dict[str, Any]
Enlarge = Callable[[np.ndarray], np.ndarray]


def main() -> None:
    from studio.machine.threads import wait_passively

    wait_passively()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clip", type=Path, help="a real clip")
    parser.add_argument("--first", type=int, default=150, help="first of its pictures that are measured")
    parser.add_argument("--last", type=int, default=220)
    parser.add_argument("--learn-from", type=int, default=150, help="how many of its first pictures are learnt from")
    parser.add_argument("--photographs", type=Path, help="where the held-out photographs lie")
    parser.add_argument("--weights", type=Path, help="the pocket super-resolver's folder, if not the shipped one")
    parser.add_argument(
        "--costs", action="store_true", help="measure speed and memory alone; the rows stay as they are"
    )
    parser.add_argument(
        "--rivals", action="store_true", help="measure what others enlarge with on the first clip, among the rows there"
    )
    parser.add_argument(
        "--hed", action="store_true", help="measure HED distance alone, on the first clip, among the rows there"
    )
    parser.add_argument("--task", action="append", choices=TASKS, help="with --rivals, this one alone")
    parser.add_argument("--quick", action="store_true", help="a few pictures, no fine-tune, nothing written")
    args = parser.parse_args()
    import cv2
    import torch

    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    if args.costs:
        _write(json.loads((RESULTS / "super_resolution.json").read_text(encoding="utf-8"))["rows"], args)
        return
    if args.hed:
        _write_text(_with_rivals(list(_hed_rows(args))))
        return
    tuned = None if args.quick or args.rivals or args.clip is None else _tuned(args)
    rows: list[Row] = []
    for name, clips in itertools.islice(_sources(args), 1 if args.rivals else None):
        for task in args.task or TASKS:
            for scale in (2, 4):
                versions = tuned if name.startswith("road") and task == "enlarge" else None
                rows += [
                    {"clip": name, "task": task, "scale": scale} | row
                    for row in _rows(clips, task, scale, versions, args, sheet=name.startswith("road"))
                ]
                print(json.dumps(rows[-1]), flush=True)
    if args.quick:
        print(f"{table(rows)}\n\n{_lacking(rows)}")
    elif args.rivals:
        _write_text(_with_rivals(rows))
    else:
        _write(rows, args)


def _hed_rows(args: argparse.Namespace) -> Iterator[Row]:
    """HED distance of every method of our own on the first clip."""
    name, (clip, *_) = next(iter(_sources(args)))
    for task in args.task or TASKS:
        for scale in (2, 4):
            large = clip[:, : clip.shape[1] // scale * scale, : clip.shape[2] // scale * scale]
            small = _made_smaller(large, task, scale)
            for method, make in _methods(scale, task, None, args).items():
                if "external" in method:
                    continue
                enlarge = make()
                made = [enlarge(one[None])[0] for one in small]  # all of them: some remember those before
                pairs = list(zip(made, large, strict=True))[::JUDGED_EVERY]
                hed = [hed_distance(middle(picture[None]), middle(wanted[None])) for picture, wanted in pairs]
                yield {"clip": name, "task": task, "scale": scale, "method": method, "hed": float(np.mean(hed))}
                print(task, scale, method, f"{np.mean(hed):.4f}", flush=True)


def _with_rivals(rows: list[Row]) -> Row:
    """What was measured before, with these rows in it: new ones, and HED distances of those beside which they were."""
    record = json.loads((RESULTS / "super_resolution.json").read_text(encoding="utf-8"))
    kept = {_key(row): row for row in record["rows"]}
    for row in rows:
        known = kept.get(_key(row))
        kept[_key(row)] = row if known is None or "external" in row["method"] else known | _hed_of(row)
    order = {place: number for number, place in enumerate(dict.fromkeys(_key(row)[:3] for row in record["rows"]))}
    return record | {"rows": sorted(kept.values(), key=lambda row: order.get(_key(row)[:3], len(order)))}


def _key(row: Row) -> tuple[str, str, int, str]:
    return row["clip"], row["task"], row["scale"], row["method"]


def _hed_of(row: Row) -> Row:
    return {"hed": row["hed"]} if "hed" in row else {}


def _write(rows: list[Row], args: argparse.Namespace) -> None:
    """The rows, and what they cost."""
    _write_text(
        {
            "rows": rows,
            "speed": _speed(args),
            "resident_bytes": {
                method: {str(count): _resident(count, method) for count in (48, 240)}
                for method in ("back-projection", "pocket")
            },
        }
    )


def _write_text(record: Row) -> None:
    rows = record["rows"]
    (RESULTS / "super_resolution.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    text = f"{table(rows)}\n\n{_lacking(rows)}\n\n{_costs(record)}"
    sheets = "\n\n".join(
        f"![{task} {scale}×: as given, {', '.join(SHOWN)}, the original](super_resolution_{task}_{scale}x.png)"
        for task in TASKS
        for scale in (2, 4)
    )
    (RESULTS / "super_resolution.md").write_text(f"# What enlarging gains\n\n{text}\n\n{sheets}\n", encoding="utf-8")
    short = [row for row in rows if row["clip"] == rows[0]["clip"]]
    write_between(ROOT / "README.md", MARKS, f"{_short_table(short)}\n\n{_costs(record)}")
    print(text)


# ---------------------------------------------------------------------------------------------------------------------
# Clips


def _sources(args: argparse.Namespace) -> Iterator[tuple[str, list[np.ndarray]]]:
    from studio.clips.read import read_clip
    from studio.driving_world import render, sample_scene

    if args.clip is not None:
        frames = read_clip(args.clip).clip.frames[args.first : args.last + 1]
        frames = frames[:6] if args.quick else frames
        yield f"road, {len(frames)} pictures", [frames]
    if args.photographs is not None:
        pans = _pans(args.photographs)
        yield f"pans over {len(pans)} held-out photographs", pans
    seeds = WORLD_SEEDS[:1] if args.quick else WORLD_SEEDS
    worlds = [render(sample_scene(seed), height=540, width=960, num_frames=5).frames for seed in seeds]
    yield f"{len(worlds)} worlds of 5 pictures", worlds


def _pans(root: Path) -> list[np.ndarray]:
    from studio.pocket.super_resolver.photographs import Moving, present, read

    rng = np.random.default_rng(7)
    return [Moving(read(path)).clip(rng, length=9, side=384) for _, path in present(root, held_out=True)]


def _made_smaller(clip: np.ndarray, task: str, scale: int) -> np.ndarray:
    from studio.clips.shrinking import in_8_bits, shrunk
    from studio.pocket.super_resolver.degradation import degraded

    if task == "restore":
        return degraded(clip, scale, np.random.default_rng(11))
    return np.stack([in_8_bits(shrunk(each.astype(np.float32), scale)) for each in clip])


# ---------------------------------------------------------------------------------------------------------------------
# Methods


def _methods(scale: int, task: str, tuned: Path | None, args: argparse.Namespace) -> dict[str, Callable[[], Enlarge]]:
    """What makes each method anew for a clip, by the row's name."""
    import cv2
    from PIL import Image

    from studio.pipelines.super_resolver import RecurrentRefiner, SuperResolverPipeline, load_super_resolver
    from studio.super_resolve.methods import BackProjection, Interpolation
    from studio.super_resolve.networks import PocketSuperResolver

    def pillow(pictures: np.ndarray) -> np.ndarray:
        size = (pictures.shape[2] * scale, pictures.shape[1] * scale)
        bicubic = Image.Resampling.BICUBIC
        return np.stack([np.asarray(Image.fromarray(each).resize(size, bicubic)) for each in pictures])

    shipped, restore = load_super_resolver(_weights(args)), task == "restore"
    silent = RecurrentRefiner(channels=4, num_blocks=1)
    linear = SuperResolverPipeline(shipped.upsampler, silent, silent)

    def pocket(pipeline: Any, rounds: int, detail: float = 0.0) -> Callable[[], Enlarge]:
        return lambda: PocketSuperResolver(pipeline, scale, restore=restore, detail=detail, back_projections=rounds)

    methods: dict[str, Callable[[], Enlarge]] = {
        "Pillow's bicubic": lambda: pillow,
        "bicubic": lambda: Interpolation(scale, cv2.INTER_CUBIC),
        "Lanczos": lambda: Interpolation(scale, cv2.INTER_LANCZOS4),
        "Lanczos + back-projection": lambda: BackProjection(scale, 3),
        "L": pocket(linear, 0),
        "L + R": pocket(shipped, 0),
    }
    if not restore:
        methods["L + R, back-projection"] = pocket(shipped, 3)
    elif shipped.details is not None:
        methods |= {f"L + R + {g:g} D": pocket(shipped, 0, g) for g in WEIGHTS_OF_D}
    if tuned is not None:
        methods["L + R, fine-tuned, back-projection"] = pocket(load_super_resolver(_weights(args), tuned), 3)
    if args.rivals:
        methods = {"bicubic": methods["bicubic"]}
    return methods | rivals(scale)[0]


def _weights(args: argparse.Namespace) -> Path:
    from studio.machine import weights
    from studio.preset import find_enlarger

    return args.weights or weights.folder_of(find_enlarger("pocket"))


def _tuned(args: argparse.Namespace) -> Path:
    """The network, fine-tuned for at most five minutes on the clip's first pictures."""
    from studio.clips.clip import Clip
    from studio.clips.read import read_clip
    from studio.clips.reference import reference_to
    from studio.clips.write import write_clip
    from studio.events import EnlargerTrainingStep
    from studio.finetune.enlarger import train
    from studio.finetune.enlarger_verb import begin
    from studio.records.enlarger_versions import EnlargerVersionStore
    from studio.records.runs import RunStore
    from studio.requests.enlarger_training import read_enlarger_training
    from studio.requests.work import TrainEnlarger

    folder = Path(tempfile.mkdtemp(prefix="tuned-"))
    clip = read_clip(args.clip).clip
    write_clip(Clip(frames=clip.frames[: args.learn_from], fps=clip.fps), folder / "learnt.mp4")
    store = RunStore(folder / "runs")
    request = read_enlarger_training({"clips": [reference_to(folder / "learnt.mp4", field="clip")]})
    version = begin(request, store=store)
    began = time.monotonic()

    def stop() -> Any:
        return "cancel" if time.monotonic() - began > 60 * LEARNING_MINUTES else None

    for event in train(TrainEnlarger(version_id=version.id), store=store, owner="local", stop=stop):
        if isinstance(event, EnlargerTrainingStep):
            print(f"fine-tune: step {event.step}, loss {event.loss:.4f}", flush=True)
    return EnlargerVersionStore(store.folder).network(version.id, method="pocket", restore=False)


# ---------------------------------------------------------------------------------------------------------------------
# Figures


def _rows(
    clips: list[np.ndarray], task: str, scale: int, tuned: Path | None, args: argparse.Namespace, *, sheet: bool
) -> list[Row]:
    from studio.metrics.enlargement import Meter

    clips = [clip[:, : clip.shape[1] // scale * scale, : clip.shape[2] // scale * scale] for clip in clips]
    given = [_made_smaller(clip, task, scale) for clip in clips]
    methods = _methods(scale, task, tuned, args)
    judged: dict[str, list[float]] = {name: [] for name in methods}
    seconds = dict.fromkeys(methods, 0.0)
    figures: dict[str, list[dict[str, float]]] = {name: [] for name in methods}
    for clip, small in zip(clips, given, strict=True):
        made = {name: make() for name, make in methods.items()}
        for enlarge in made.values():  # what is loaded at first is not on the clock
            enlarge(small[:1])
        made = {name: make() for name, make in methods.items()}
        height, width = clip.shape[1:3]
        with Meter(tuple(methods), height=height, width=width, scale=scale, original=True, names=MEASURED) as meter:
            for number, (large, one) in enumerate(zip(clip, small, strict=True)):
                pictures: dict[str, np.ndarray] = {}
                for name, enlarge in made.items():
                    began = time.process_time()
                    pictures[name] = enlarge(one[None])[0]
                    seconds[name] += time.process_time() - began
                meter.add(pictures, given=one, original=large)
                if number % JUDGED_EVERY == 0 and why_not() is None:
                    for name, picture in pictures.items():
                        judged[name].append(hed_distance(middle(picture[None]), middle(large[None])))
                if sheet and not args.rivals and number == len(clip) // 2 and not args.quick:
                    _write_sheet(task, scale, one, pictures, large)
            for name, found in meter.figures().items():
                figures[name].append(dict(found))
    count = sum(map(len, clips))
    return [
        {"method": name, "cpu_seconds": seconds[name] / count}
        | {key: float(np.mean([each[key] for each in found])) for key in found[0]}
        | ({"hed": float(np.mean(judged[name]))} if judged[name] else {})
        for name, found in figures.items()
    ]


def _write_sheet(
    task: str, scale: int, given: np.ndarray, pictures: dict[str, np.ndarray], original: np.ndarray
) -> None:
    """The same two places of a picture: as given, by some methods, and as it was."""
    import cv2
    from PIL import Image

    nearest = cv2.resize(given, original.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    last = SHOWN[-1] if SHOWN[-1] in pictures else "L + R"
    shown = [nearest, *(pictures[name] for name in (*SHOWN[:2], last)), original]
    rows = []
    for top, left in ((250, 380), (300, 60)):
        cuts = [each[top : top + 120, left : left + 200] for each in shown]
        rows.append(
            np.concatenate([np.pad(cut, ((0, 4), (0, 4), (0, 0)), constant_values=255) for cut in cuts], axis=1)
        )
    path = RESULTS / f"super_resolution_{task}_{scale}x.png"
    sheet = Image.fromarray(np.concatenate(rows))
    sheet.resize((sheet.width * 2, sheet.height * 2), Image.Resampling.NEAREST).save(path)


def _speed(args: argparse.Namespace) -> dict[str, Any]:
    """Pictures a second to 960×540 with every core, encoding apart, by scale; and what the processor can do."""
    import cv2
    import torch

    from studio.pipelines.super_resolver import load_super_resolver
    from studio.super_resolve.networks import PocketSuperResolver

    cores = len(os.sched_getaffinity(0))
    cv2.setNumThreads(cores)
    torch.set_num_threads(cores)
    found: dict[str, Any] = {"cores": cores, "capability": torch.backends.cpu.get_cpu_capability()}
    for scale in (2, 4):
        upscaler = PocketSuperResolver(load_super_resolver(_weights(args)), scale, back_projections=3)
        picture = np.random.default_rng(0).integers(0, 256, (1, 540 // scale, 960 // scale, 3), np.uint8)
        upscaler(picture)
        began, count = time.perf_counter(), 20
        for _ in range(count):
            upscaler(picture)
        found[str(scale)] = count / (time.perf_counter() - began)
    return found


def _resident(count: int, method: str) -> int:
    """Bytes that enlarging so many pictures of 480×270 four times has resident at the most."""
    from studio.clips.clip import Clip
    from studio.clips.write import write_clip
    from studio.driving_world import render, sample_scene

    frames = render(sample_scene(0), height=270, width=480, num_frames=24).frames
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "clip.mp4"
        write_clip(Clip(frames=np.concatenate([frames] * (count // 24)), fps=24), clip)
        # VmHWM and not ru_maxrss, which a process inherits from whoever started it.
        code = (
            "import re, sys; from studio.__main__ import main; status = main(sys.argv[1:]); "
            "print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]); sys.exit(status)"
        )
        command = [sys.executable, "-c", code, "upscale", str(clip), "--scale", "4", "--method", method]
        done = subprocess.run(
            [*command, "--runs", folder], env=os.environ, cwd=ROOT, capture_output=True, text=True, check=True
        )
    return 1024 * int(done.stdout.splitlines()[-1])


# ---------------------------------------------------------------------------------------------------------------------
# Tables


def table(rows: list[Row]) -> str:
    lines = [
        "| clip | task | scale | method | PSNR | over bicubic | SSIM | VMAF-NEG | HED distance | shrink-back | flicker "
        "| warping | colour | CPU seconds a picture |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        lines.append(
            f"| {row['clip']} | {row['task']} | {row['scale']}× | {row['method']} | {row['psnr']:.2f} dB "
            f"| {row['psnr'] - _bicubic(rows, row)['psnr']:+.2f} dB | {row['ssim']:.4f} | {row.get('vmaf_neg', 0):.1f} "
            f"| {format(row['hed'], '.4f') if 'hed' in row else '–'} | {row['shrink_back']:.1f} dB "
            f"| {row['flicker']:.2f}× | {row['warping_error']:.2f}× "
            f"| {row['colour_error']:.2f} | {row['cpu_seconds']:.3f} |"
        )
    return "\n".join(lines)


def _lacking(rows: list[Row]) -> str:
    """Why something was not measured, in a sentence each."""
    reasons = [] if any("hed" in row for row in rows) else [why_not() or "HED distances were not measured."]
    if not all("hed" in row for row in rows) and not reasons:
        reasons.append("A dash: HED distance was not measured then.")
    for name, reason in rivals(2)[1].items():
        if all(row["method"] != name for row in rows):
            reasons.append(f"{name} has no row: {reason.rstrip('.')}.")
    return " ".join(reasons)


def _short_table(rows: list[Row]) -> str:
    """One line a method, PSNR over bicubic for each task and scale."""
    tasks = [(task, scale) for task in TASKS for scale in (2, 4)]
    titles = [f"{task} {scale}×" for task, scale in tasks]
    lines = [f"| PSNR over bicubic | {' | '.join(titles)} |", f"| --- |{' --- |' * len(titles)}"]
    for method in dict.fromkeys(row["method"] for row in rows):
        cells = []
        for task, scale in tasks:
            found = [row for row in rows if (row["method"], row["task"], row["scale"]) == (method, task, scale)]
            cells.append(f"{found[0]['psnr'] - _bicubic(rows, found[0])['psnr']:+.2f} dB" if found else "")
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _bicubic(rows: list[Row], row: Row) -> Row:
    same = [each for each in rows if all(each[key] == row[key] for key in ("clip", "task", "scale"))]
    return next(each for each in same if each["method"] == "bicubic")


def _costs(record: Row) -> str:
    speed, memory = record["speed"], record["resident_bytes"]
    words = [
        f"To 960×540, L + R with back-projection makes {speed['2']:.1f} pictures a second at 2× and {speed['4']:.1f} "
        f"at 4× on {speed['cores']} cores ({speed['capability']}), encoding apart."
    ]
    for method, of_count in memory.items():
        few, many = of_count["48"], of_count["240"]
        words.append(
            f"Memory of {method} for 240 pictures is {many / few:.2f}× that for 48 ({many / 1e6:.0f} MB resident, "
            "480×270 at 4×)."
        )
    return " ".join(words)


if __name__ == "__main__":
    main()
