"""What loading a preset brings in: its own family, and nothing that only other rooms need."""

import subprocess
import sys

OTHER_ROOMS = ("gradio", "torchvision", "matplotlib", "skimage", "pandas", "imageio", "av")
"""Libraries that take a good part of a second each, and that no denoising needs."""
LOADED = """
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from studio.events import ModelReady
from studio.generate import generate
from studio.preset import find_preset
from studio.records.runs import RunStore
from studio.requests.generation import request_for

with TemporaryDirectory() as folder:
    events = generate(request_for(find_preset("pocket"), prompt="a road"), store=RunStore(Path(folder)))
    assert any(isinstance(event, ModelReady) for event in events)
    events.close()
    print(*sys.modules)
"""


def test_a_first_clip_loads_its_own_family_and_no_library_of_other_rooms() -> None:
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, timeout=300, check=True)
    modules = done.stdout.splitlines()[-1].split()

    assert [name for name in OTHER_ROOMS if name in modules] == []
    pipelines = {name.split(".")[2] for name in modules if name.startswith("diffusers.pipelines.")}
    assert {name for name in pipelines if not name.startswith("pipeline_")} == {"wan"}
    rooms = {name.split(".")[1] for name in modules if name.startswith("studio.")}
    assert rooms.isdisjoint({"finetune", "compare", "jobs", "metrics", "chopgrad", "pocket", "driving_world", "ui"})
