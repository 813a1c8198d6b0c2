"""ZeroGPU: the same verb on a Hugging Face Space that lends its graphics card for one function call at a time.

There a decorated generator runs in a fork of this process, which has the card, and what it yields is pickled back. So
the queue works in this process (`JobQueue(in_process=True)`), and this module stands where `generate` does elsewhere:

    JobQueue(store=store, in_process=True, verbs={"clip": "studio.remote.zero_gpu:generate"})

Outside ZeroGPU the decorator does nothing, and the stream is `generate`'s own. Knows the fork. Refuses to know models.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from studio.errors import MachineError
from studio.events import GenerationEvent, Stop, StopWish, never
from studio.generate import generate as generate_here
from studio.machine import pace
from studio.records.runs import RunStore
from studio.requests.generation import GenerationRequest

Stream = Generator[GenerationEvent, None, None]

UNMEASURED_SECONDS = 60
"""What is asked of the card before anything was measured; ZeroGPU's own default."""
MARGIN = 1.5
"""Asked for beyond what is predicted: a call that runs out of time is cut off, one that asks too much waits longer."""
LOADING_SECONDS = 15
"""The fork starts without the model."""


def generate(request: GenerationRequest, *, store: RunStore, owner: str = "local", stop: Stop = never) -> Stream:
    """`studio.generate.generate`, on a borrowed card. A callable does not cross the fork; a marker file does."""
    with TemporaryDirectory() as folder:
        marker = Path(folder) / "keep"
        with closing(on_the_card()(request, store, owner, marker)) as stream:
            for event in stream:
                wish = stop()
                if wish == "cancel":
                    return
                if wish == "keep":
                    marker.touch()
                yield event


@cache
def on_the_card() -> Callable[[GenerationRequest, RunStore, str, Path], Stream]:
    """The function that ZeroGPU runs in its fork. To be called once at the start: a Space without one is refused.

    Raises:
        MachineError: the package that lends the card is not installed.
    """
    try:
        import spaces
    except ImportError as error:
        raise MachineError("ZeroGPU needs the package `spaces`.", way_out='pip install -e ".[spaces]"') from error
    return spaces.GPU(duration=seconds_to_ask_for)(_forked)


def seconds_to_ask_for(request: GenerationRequest, store: RunStore, owner: str, marker: Path) -> int:
    """How long the card is asked for: short requests wait less and cost the visitor less of their quota."""
    prediction = pace.predict(request, store.folder)
    return UNMEASURED_SECONDS if prediction is None else round(LOADING_SECONDS + MARGIN * prediction.high)


def _forked(request: GenerationRequest, store: RunStore, owner: str, marker: Path) -> Stream:
    def stop() -> StopWish | None:
        return "keep" if marker.exists() else None

    yield from generate_here(request, store=store, owner=owner, stop=stop)
