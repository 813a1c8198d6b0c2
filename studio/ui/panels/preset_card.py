"""The preset's card: what the model is, what it weighs, whether it runs here and why not, and where its weights are.

Knows presets, the machine and the state of the weights. Refuses to load anything.
"""

from __future__ import annotations

from studio.machine.hardware import Machine
from studio.machine.placement import verdict
from studio.preset import Preset
from studio.ui.components import message
from studio.ui.components.values import Fact, Facts, Message
from studio.ui.wording import licence_text


def verdict_line(preset: Preset, machine: Machine) -> Message:
    """The value of a message: whether the preset runs here, in a sentence."""
    judged = verdict(preset, machine)
    if not judged.fits:
        return message.warn(f"Does not run here. {judged.why}")
    if judged.slow:
        return message.warn(judged.why)
    how = "" if judged.how in ("plain", "CPU") else f" with {judged.how}"
    return message.quiet(
        f"Runs here{how} · {count_text(preset.memory.parameters)} parameters · {preset.weights.licence}"
    )


def card(preset: Preset, machine: Machine) -> Facts:
    """The value of `Facts` for a preset."""
    judged = verdict(preset, machine)
    fits = f"yes, {judged.how}" if judged.fits and judged.how != "plain" else "yes" if judged.fits else "no"
    if judged.slow:
        fits += ", but it takes hours"
    rows: list[Fact] = [
        {"name": "runs here", "value": fits, "strong": True},
        {"name": "parameters", "value": count_text(preset.memory.parameters), "strong": True},
        {"name": "licence", "value": licence_text(preset)},
        {"name": "takes", "value": grid_text(preset)},
    ]
    notes = [judged.why] if judged.why else []
    return {
        "title": "",
        "note": preset.summary,
        "rows": rows,
        "notes": notes + ([preset.notes] if preset.notes else []),
    }


def count_text(parameters: int) -> str:
    return f"{parameters / 10**9:.1f} billion" if parameters >= 10**9 else f"{parameters / 10**6:.1f} million"


def grid_text(preset: Preset) -> str:
    """Which sizes and lengths the model takes, in a line."""
    size, frames = preset.size, preset.frames
    native = ", ".join(f"{width}×{height}" for height, width in size.native[:2])
    if size.heights or size.widths:
        sides = f"{'/'.join(map(str, size.widths)) or 'any'} by {'/'.join(map(str, size.heights)) or 'any'} pixels"
    else:
        sides = f"{size.minimum}–{size.maximum} pixels in steps of {size.multiple_of}"
    lengths = (
        f"{frames.minimum} frames"
        if frames.minimum == frames.maximum
        else f"{frames.minimum}–{frames.maximum} frames ({frames.multiple_of}k + {frames.offset})"
        if frames.multiple_of > 1
        else f"{frames.minimum}–{frames.maximum} frames"
    )
    return f"{sides}; {lengths}" + (f"; trained at {native}" if native else "")
