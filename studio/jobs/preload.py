"""Loading a model before anybody asks for it, so that the first clip need not wait.

Knows what `generate` would do first. Refuses to know who will ask.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from studio.events import ModelReady
from studio.generate import generate
from studio.machine import hardware, pace, weights
from studio.preset import find_preset
from studio.records.runs import RunStore
from studio.requests.generation import request_for

PACE_STEPS = 4
"""Steps of the run that says how quick this machine is; the first is not counted."""


def nobody_waits() -> bool:
    return False


def preload(preset_name: str, *, store: RunStore, gives_way: Callable[[], bool] = nobody_waits) -> None:
    """Load a preset.

    The pace of a model that ships with the studio is taken on the way, if it is not known yet: a few steps at its
    default size, in a folder that is thrown away, so that even the first prediction rests on something.

    Args:
        preset_name: Which.
        store: Beside its runs the pace is kept.
        gives_way: Asked while the pace is taken; once it says yes, that is left off. What was loaded stays.

    Raises:
        StudioError: as `generate` would.
    """
    from studio import pipelines, processor

    preset = find_preset(preset_name)
    request = request_for(preset, prompt="calibration", seed=0, num_inference_steps=PACE_STEPS)
    machine = processor.as_tried(hardware.measure(), store.folder)
    if preset.weights_folder is None or pace.predict(request, store.folder) is not None:
        processor.settle_threads()
        pipelines.load(preset, pipelines.place(preset, request, machine), folder=weights.folder_of(preset))
        return
    with TemporaryDirectory() as scratch:
        loaded = False
        with closing(generate(request, store=RunStore(Path(scratch)))) as stream:
            for event in stream:
                loaded = loaded or isinstance(event, ModelReady)
                if loaded and gives_way():
                    return
        for run_pace in pace.paces(Path(scratch)):
            pace.add(run_pace, store.folder)
