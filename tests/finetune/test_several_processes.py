"""Two processes that train together end where one alone would, and never drift apart."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.small_training import asked

from studio.finetune.training import Prepared
from studio.requests.training import TrainingClip

STEPS = 3

# Importing takes longer than training: it is done once, and the processes are forked from there.
TRAIN = """
import os, sys, torch
from dataclasses import replace
from pathlib import Path
torch.set_num_threads(1)
import torch.distributed as dist
from safetensors.torch import save_file
from studio import pipelines
from studio.machine import hardware, weights
from studio.finetune.training import Prepared, Training
from studio.requests.training import read_finetune_request
from studio.preset import find_preset
from studio.requests.generation import request_for

folder, port, steps = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])

def train(name, turns, rank=0, world=1):
    if world > 1:
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port, RANK=str(rank), WORLD_SIZE=str(world))
        dist.init_process_group("gloo")
    request = read_finetune_request((folder / "request.json").read_bytes())
    request = request.model_copy(update={"gradient_accumulation_steps": turns})
    preset = find_preset(request.preset)
    plain = {"torch_dtype": "float32", "quantization": "none", "offload": "none", "vae_tiling": "off"}
    here = replace(hardware.measure(), accelerator=None)  # two processes want a card each
    placement = pipelines.place(preset, request_for(preset, prompt="a clip", **plain), here)
    model = pipelines.load(preset, placement, folder=weights.folder_of(preset)).to_train()
    training = Training(model, request, Prepared.load(folder / "samples.safetensors"))
    taken = []
    take_turn = training.take_turn
    training.take_turn = lambda number, *rest: (taken.append(number), take_turn(number, *rest))[1]
    kept = {f"0 {key}": tensor.detach().clone() for key, tensor in training.parameters.items()}
    losses = []
    for _ in range(steps):
        step = training.take_step()
        losses.append(step.loss)
        kept |= {f"{step.step} {key}": tensor.detach().clone() for key, tensor in training.parameters.items()}
    kept |= {f"average {key}": tensor for key, tensor in training.average.items()}
    parameters = [getattr(each, "_local_tensor", each) for each in model.denoisers["transformer"].parameters()]
    held = sum(each.numel() for each in parameters if not each.requires_grad)
    kept |= {"losses": torch.tensor(losses, dtype=torch.float64), "taken": torch.tensor(taken)}
    kept |= {"held": torch.tensor(held)}
    save_file({key: tensor.cpu().contiguous() for key, tensor in kept.items()}, folder / f"{name}.safetensors")
    if world > 1:
        dist.destroy_process_group()

children = []
for work in (("alone", 2), ("first", 1, 0, 2), ("second", 1, 1, 2)):
    child = os.fork()
    if not child:
        train(*work)
        os._exit(0)
    children.append(child)
sys.exit(any(os.waitpid(child, 0)[1] for child in children))
"""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture(scope="module", params=["wan", "wan-two-experts"])
def trained(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, catalogue: Path
) -> dict[str, dict[str, torch.Tensor]]:
    """What each process held after each step, by the process's name."""
    folder = tmp_path_factory.mktemp("together")
    draw = torch.Generator().manual_seed(5)
    samples = Prepared(
        pixels=torch.randint(0, 256, (5, 5, 32, 32, 3), dtype=torch.uint8, generator=draw),
        latents=torch.randn(5, 4, 2, 2, 2, generator=draw),
        prompts=tuple({"encoder_hidden_states": each[None]} for each in torch.randn(5, 16, 16, generator=draw)),
        held_out=torch.tensor([False, False, True, False, False]),
        prior_latents=torch.zeros(0),
        prior_prompts=(),
    )
    samples.save(folder / "samples.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAILIES_PRESETS", str(catalogue))
        clip = TrainingClip(path=Path("none.mp4"), caption="none")
        training = asked((clip,), objective="pixel", learning_rate=0.01, max_train_steps=STEPS)
        training = training.model_copy(update={"preset": request.param})
        (folder / "request.json").write_text(training.model_dump_json(), encoding="utf-8")
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", TRAIN, str(folder), str(free_port()), str(STEPS)],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            check=True,
        )
    return {name: load_file(folder / f"{name}.safetensors") for name in ("alone", "first", "second")}


pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
Trained = dict[str, dict[str, torch.Tensor]]
OWN = {"taken", "held"}
"""What is each process's own."""


@pytest.mark.thorough
def test_two_processes_end_in_the_weights_of_one_that_takes_both_turns(trained: Trained) -> None:
    alone, first = trained["alone"], trained["first"]
    assert alone.keys() == first.keys()
    for name in alone.keys() - {"losses", *OWN}:
        torch.testing.assert_close(first[name], alone[name], rtol=1e-4, atol=1e-7, msg=name)
    torch.testing.assert_close(first["losses"], alone["losses"], rtol=1e-5, atol=0)
    # Something was learnt on the way: otherwise the weights would be equal whatever had happened.
    # The first factors move one step later than the second ones, which are zero before.
    learnt = [name for name in alone if name.startswith(f"{STEPS} ") and ".lora_B." in name]
    assert learnt
    assert all(not torch.equal(alone[name], alone[name.replace(f"{STEPS} ", "0 ", 1)]) for name in learnt)


@pytest.mark.thorough
def test_the_processes_share_the_turns_and_take_none_twice(trained: Trained) -> None:
    assert trained["alone"]["taken"].tolist() == [0, 1, 2, 3, 4, 5]
    assert trained["first"]["taken"].tolist() == [0, 2, 4]
    assert trained["second"]["taken"].tolist() == [1, 3, 5]


@pytest.mark.thorough
def test_both_processes_hold_the_same_bits_after_every_step(trained: Trained) -> None:
    first, second = trained["first"], trained["second"]
    assert len({name.split()[0] for name in first} - {"average", "losses", *OWN}) == STEPS + 1
    for name in first.keys() - OWN:
        assert torch.equal(first[name], second[name]), name


@pytest.mark.thorough
def test_the_frozen_weights_are_shared_out(trained: Trained) -> None:
    whole = trained["alone"]["held"].item()
    shares = [trained[name]["held"].item() for name in ("first", "second")]
    assert sum(shares) == whole
    assert max(shares) < 0.6 * whole
