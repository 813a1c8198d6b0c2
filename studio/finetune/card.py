"""The model card of a version, in the Hub's format.

Knows records and Markdown. Refuses to know how anything in them was measured.
"""

from __future__ import annotations

from studio.family import family_of
from studio.preset import Preset
from studio.records.versions import Scores, Version


def card(version: Version, preset: Preset, files: tuple[str, ...]) -> str:
    """A README.md: what it is, how to use it, what it learnt from, how well, under which terms.

    Args:
        version: Which.
        preset: What it is a version of.
        files: The denoisers' updates, by name.
    """
    request = version.request
    base = f"{preset.weights.repo}" if preset.weights.repo else preset.name
    front = ["---", "library_name: diffusers", "tags:", "- text-to-video", "- lora", "- chopgrad"]
    front += [f"base_model: {base}"] if preset.weights.repo else []
    front += ["---"]
    lines = [
        *front,
        "",
        f"# {_cell(version.title)}",
        "",
        f"A low-rank update (rank {request.lora_rank}) of {preset.title}, fine-tuned with Dailies on "
        f"{sum(not clip.left_out for clip in version.clips)} clips.",
        "",
        "```python",
        *_use(version.id, preset.pipeline, files),
        "```",
        "",
        "## Training",
        "",
        "| setting | value |",
        "| --- | --- |",
        *(f"| {name} | {value} |" for name, value in _settings(version).items()),
        "",
        "## Scores",
        "",
        "Held-out samples, denoised in one step at fixed noise."
        if version.held_out
        else "Too few clips to hold any out: these are scores of what was trained on.",
        "",
        "| | PSNR | pixel loss | own loss |",
        "| --- | --- | --- | --- |",
        _row("base", version.base_scores),
        _row("this version", version.scores),
        "",
    ]
    if version.worse_than_base:
        lines += ["**It denoises these samples worse than the model it came from.**", ""]
    lines += [
        "## Data",
        "",
        "| clip | sha256 | seconds | samples | held out | origin | licence | caption |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for clip in version.clips:
        samples = clip.left_out or f"{clip.samples}"
        lines.append(
            f"| {_cell(clip.name)} | {clip.sha256[:12]} | {clip.seconds:.1f} | {_cell(samples)} | {clip.held_out} "
            f"| {_cell(clip.origin or 'not stated')} | {_cell(clip.licence or 'not stated')} | {_cell(clip.caption)} |"
        )
    lines += ["", "Origins and licences are as whoever trained it stated them.", ""]
    return "\n".join(lines)


def _use(version_id: str, pipeline: str, files: tuple[str, ...]) -> list[str]:
    """How diffusers takes it up; not all of its pipelines have a loader, nor all of its models."""
    folder = "path/to/this/folder"
    loader = family_of(pipeline).lora_loader
    if loader == "none":
        return [f"# diffusers loads no update into a {pipeline}; `studio.pipelines.adapters.load_adapter` does."]
    if loader == "transformer":
        return [f'pipeline.transformer.load_lora_adapter("{folder}", weight_name="{files[0]}", prefix="transformer")']
    load = f'pipeline.load_lora_weights("{folder}", adapter_name="{version_id}"'
    if len(files) == 1:
        return [f"{load})"]
    first, second = (f'{load}, weight_name="{name}"' for name in files)
    return [f"{first})", f"{second}, load_into_transformer_2=True)"]


def _settings(version: Version) -> dict[str, object]:
    request = version.request
    rows: dict[str, object] = {
        "preset": request.preset,
        "size": f"{request.width}×{request.height}, {request.num_frames} frames at {request.fps:g} a second",
        "objective": request.objective,
        "steps": version.step,
        "learning rate": f"{request.learning_rate:g}",
        "minutes": f"{version.seconds / 60:.1f}",
    }
    if request.objective != "latent":
        window = f", window {request.window}, context {request.context}" if request.mode == "truncated" else ""
        rows["gradients through the decoder"] = request.mode + window
    if request.prior_loss_weight:
        rows["prior preservation"] = f"{request.prior_loss_weight:g}"
    return rows


def _row(name: str, scores: Scores | None) -> str:
    if scores is None:
        return f"| {name} | – | – | – |"
    return f"| {name} | {scores.psnr:.2f} dB | {scores.pixel:.4f} | {scores.latent:.4f} |"


def _cell(words: str) -> str:
    """Text from outside in a table's cell: one line, without anything that Markdown or HTML would read."""
    plain = " ".join(words.split())[:200]
    return "".join(f"\\{letter}" if letter in "\\|[]<>*_`#" else letter for letter in plain)
