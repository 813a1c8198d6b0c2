"""Placement: where a model runs and how, decided by memory; and the verdict, which is the same decision in words."""

import dataclasses
import itertools
from typing import Any, get_args

import pytest

from studio.errors import DoesNotFit, RequestError
from studio.events import Placement
from studio.machine.hardware import GB, Machine
from studio.machine.placement import How, place, verdict
from studio.preset import EnlargerPreset, Preset, find_enlarger, find_preset, list_enlargers, list_presets
from studio.requests.generation import GenerationRequest, request_for

POCKET = find_preset("pocket")
WAN_SMALL = find_preset("wan2.1-t2v-1.3b")
WAN_LARGE = find_preset("wan2.1-t2v-14b")
CATALOGUE, _ = list_presets()


def _machine(*, vram: float = 0, ram: float = 64, **fields: Any) -> Machine:
    """A machine with little else running on it; sizes in gigabytes."""
    values: dict[str, Any] = {
        "cpu_name": "a processor",
        "cores": 8,
        "ram_total": int(ram * GB),
        "ram_free": int(ram * GB * 0.95),
        "accelerator": "cuda" if vram else None,
        "accelerator_name": "a card" if vram else None,
        "vram_total": int(vram * GB),
        "vram_free": int(vram * GB * 0.95),
        "bf16": True,
        "hosted": None,
    }
    return Machine(**(values | fields))


LAPTOP = _machine(ram=16, ram_free=12 * GB, bf16=False)
WORKSTATION = _machine(vram=80, ram=128)


def _request(preset: Preset, **fields: Any) -> GenerationRequest:
    return request_for(preset, prompt="a red car, on a road", **({"seed": 3, "num_inference_steps": 2} | fields))


def _machines() -> list[Machine]:
    """Laptops, workstations, Macs; with and without bfloat16, and with and without a library for 8 bits."""
    memories = itertools.product((0, 6, 8, 12, 16, 24, 32, 48, 80, 141), (8, 16, 32, 64, 128))
    machines = [_machine(vram=vram, ram=ram) for vram, ram in memories]
    machines += [_machine(vram=ram * 0.75, ram=ram, accelerator="mps") for ram in (8, 16, 32, 64, 128)]
    machines += [dataclasses.replace(machine, bf16=False) for machine in machines]
    return machines + [dataclasses.replace(machine, int8_backend="torchao") for machine in machines]


ASPECTS = {"none": "plain", "model": "model offload", "group": "group offload", "sequential": "sequential offload"}


@pytest.mark.parametrize("preset", CATALOGUE, ids=lambda preset: preset.name)
def test_the_page_and_the_worker_agree_about_every_machine(preset: Preset) -> None:
    """What the card says of a preset is what happens to a clip with its defaults on that machine, when it is idle."""
    machines = _machines()
    assert len(machines) >= 70
    request = request_for(preset, prompt="a road", seed=1)
    for machine in machines:
        judged = verdict(preset, machine)
        try:
            placed = place(preset, request, machine.idle())
        except DoesNotFit:
            assert not judged.fits, machine
            assert (judged.how, "Needs about" in judged.why) == ("", True)
            continue
        how = "CPU" if placed.device == "cpu" else "int8" if placed.quantization == "int8" else ASPECTS[placed.offload]
        assert (judged.fits, judged.how) == (True, how), machine


def test_an_autoencoder_in_sixteen_bits_is_counted_so() -> None:
    """Latte's runs in the transformer's format; a verdict that took 32 bits for granted turned it away here."""
    judged = verdict(find_preset("latte-1"), _machine(vram=16, ram=8))
    assert (judged.fits, judged.how) == (True, "plain")


@pytest.mark.parametrize(
    ("preset", "machine", "how"),
    [
        (POCKET, _machine(ram=2), "CPU"),
        (POCKET, _machine(vram=6, ram=8), "plain"),
        (WAN_SMALL, _machine(vram=24), "plain"),
        (WAN_SMALL, _machine(vram=16), "model offload"),
        (WAN_SMALL, _machine(vram=8), "group offload"),
        (WAN_SMALL, _machine(ram=24), "CPU"),
        (WAN_SMALL, _machine(ram=8), ""),
        (WAN_LARGE, _machine(vram=143, ram=128), "plain"),
        (WAN_LARGE, _machine(vram=40, ram=64), "model offload"),
        (WAN_LARGE, _machine(vram=24, ram=64), "group offload"),
        (WAN_LARGE, _machine(vram=24, ram=64, int8_backend="torchao"), "int8"),
        (WAN_LARGE, _machine(vram=24, ram=32), ""),
        (WAN_LARGE, _machine(ram=24), ""),
        (WAN_LARGE, _machine(vram=18, ram=24, accelerator="mps"), ""),
    ],
    ids=lambda value: value.name if isinstance(value, Preset) else "",
)
def test_how_a_preset_runs_follows_from_the_memory(preset: Preset, machine: Machine, how: str) -> None:
    judged = verdict(preset, machine)
    assert (judged.fits, judged.how) == (how != "", how)


def test_a_refusal_gives_the_numbers_in_plain_words() -> None:
    why = verdict(WAN_LARGE, _machine(ram=24)).why
    weights = 2 * WAN_LARGE.memory.parameters / GB
    assert f"Needs about {weights:.1f} GB for weights in bfloat16" in why
    assert "this machine has 24.0 GB of memory and no accelerator" in why


def test_a_large_model_on_a_processor_is_said_to_be_slow_and_the_pocket_model_is_not() -> None:
    large, pocket = (verdict(preset, _machine(ram=64)) for preset in (WAN_SMALL, POCKET))
    assert large.fits
    assert large.slow
    assert "Very slow" in large.why
    assert not pocket.slow
    assert "slow" not in pocket.why


def test_eight_bits_are_named_where_they_spare_offloading_by_blocks() -> None:
    assert "8 bits" in verdict(WAN_LARGE, _machine(vram=24, ram=64, int8_backend="torchao")).why


@pytest.mark.parametrize("preset", CATALOGUE, ids=lambda preset: preset.name)
def test_more_memory_never_makes_a_preset_worse_off(preset: Preset) -> None:
    order: tuple[str, ...] = ("", "sequential offload", "group offload", "int8", "model offload", "plain")
    assert set(order) | {"CPU"} == set(get_args(How))
    verdicts = [verdict(preset, _machine(vram=size, ram=128)) for size in (4, 8, 12, 16, 24, 32, 48, 80, 141)]
    ranks = [order.index(judged.how) for judged in verdicts]
    assert ranks == sorted(ranks)
    assert verdicts[-1].fits, "the largest card there is runs every preset of the catalogue"


def _wan(**fields: Any) -> tuple[Preset, GenerationRequest]:
    preset = find_preset("wan2.1-t2v-1.3b")
    return preset, _request(preset, **fields)


def test_a_processor_with_bfloat16_decodes_in_it_and_denoises_in_float32() -> None:
    preset = find_preset("pocket")
    request = _request(preset)
    placement = place(preset, request, dataclasses.replace(LAPTOP, bf16=True))
    assert (placement.torch_dtype, placement.vae_dtype, placement.channels_last) == ("float32", "bfloat16", True)
    assert any("bfloat16" in reason for reason in placement.reasons)
    plain = place(preset, request, LAPTOP)
    assert (plain.torch_dtype, plain.vae_dtype, plain.channels_last) == ("float32", "float32", False)
    assert (placement.planar, plain.planar) == (False, True), "2D convolutions are what is fast in float32"
    asked = request.model_copy(update={"torch_dtype": "float32"})
    everything = place(preset, asked, dataclasses.replace(LAPTOP, bf16=True))
    assert everything.vae_dtype == "float32", "float32 is the way out of NaN, so it is meant for everything"


def test_what_changes_the_picture_does_not_hang_on_what_else_is_running() -> None:
    def picture(placement: Placement) -> tuple[Any, ...]:
        return (
            placement.torch_dtype,
            placement.vae_dtype,
            placement.vae_tiling,
            placement.quantization,
            placement.channels_last,
            placement.planar,
        )

    preset, request = _wan()
    card = dataclasses.replace(WORKSTATION, vram_total=24 * GB)
    seen: dict[str, Placement] = {}
    for free in (24, 22, 20, 18, 16, 15, 14):
        try:
            placement = place(preset, request, dataclasses.replace(card, vram_free=free * GB))
        except DoesNotFit:
            break
        seen[placement.offload] = placement
    assert len(seen) > 1, "the sweep should reach offloading"
    assert len({picture(placement) for placement in seen.values()}) == 1
    assert all(offload in " ".join(placement.reasons) for offload, placement in seen.items() if offload != "none")


def test_offloading_goes_from_the_fastest_to_the_leanest() -> None:
    preset = find_preset("wan2.1-t2v-14b")
    request = _request(preset, quantization="none")
    order = ["none", "model", "group", "sequential"]
    reached = []
    for free in range(80, 0, -2):
        machine = dataclasses.replace(WORKSTATION, vram_free=free * GB)
        try:
            offload = place(preset, request, machine).offload
        except DoesNotFit:
            break
        if offload not in reached:
            reached.append(offload)
    assert reached == [offload for offload in order if offload in reached]
    assert reached[0] == "none"
    assert len(reached) >= 3


def test_too_large_a_model_is_refused_with_numbers_and_a_way_out() -> None:
    preset = find_preset("wan2.1-t2v-14b")
    with pytest.raises(DoesNotFit, match=r"needs about [\d.]+ GB of memory; there are 16\.0 GB") as caught:
        place(preset, _request(preset), LAPTOP)
    assert "smaller" in caught.value.way_out
    with pytest.raises(DoesNotFit, match="Close other programs"):
        place(find_preset("pocket"), _request(find_preset("pocket")), dataclasses.replace(LAPTOP, ram_free=GB // 100))


def test_what_a_machine_does_not_have_is_refused_by_name() -> None:
    preset, request = _wan(offload="model")
    with pytest.raises(RequestError, match="offload = model needs an accelerator"):
        place(preset, request, LAPTOP)
    with pytest.raises(RequestError, match="saves nothing on mps"):
        place(preset, request, dataclasses.replace(WORKSTATION, accelerator="mps"))


def test_eight_bits_without_the_library_are_refused_honestly() -> None:
    preset, request = _wan(quantization="int8")
    with pytest.raises(RequestError, match="not installed") as caught:
        place(preset, request, LAPTOP)
    assert "torchao" in caught.value.way_out


READY = dataclasses.replace(WORKSTATION, triton=True, attention_backends=("flash", "sage"))
"""A card with what can be installed beside it."""


def test_blocks_are_compiled_where_it_is_asked_for_and_can_be() -> None:
    preset, request = _wan(compile=True)
    assert place(preset, request, READY).compile
    assert not place(preset, _wan()[1], READY).compile
    sequential = request.model_copy(update={"offload": "sequential"})
    assert place(preset, request.model_copy(update={"offload": "group"}), READY).compile
    for asked, machine, why in (
        (request, LAPTOP, "graphics card"),
        (request, dataclasses.replace(READY, accelerator="mps"), "graphics card"),
        (request, dataclasses.replace(READY, triton=False), "Triton"),
        (sequential, READY, "sequential"),
    ):
        with pytest.raises(RequestError, match=why) as refused:
            place(preset, asked, machine)
        assert refused.value.field == "compile"
        assert "Leave compile off" in refused.value.way_out


@pytest.mark.parametrize("vram", [4, 8, 12, 16, 24, 48, 80])
@pytest.mark.parametrize("preset", list_enlargers()[0], ids=lambda preset: preset.name)
def test_a_model_that_enlarges_is_judged_on_every_card(preset: EnlargerPreset, vram: int) -> None:
    card = dataclasses.replace(READY, vram_total=vram * GB, vram_free=vram * GB - GB // 2)
    judged = verdict(preset, card)
    assert judged.fits == (judged.how != "")
    assert judged.how != "sequential offload" or preset.name != "kandinsky-6-vsr"  # whose blocks must be compiled
    assert judged.fits or vram < 48


def test_scores_are_counted_where_blocks_cannot_be_compiled() -> None:
    kandinsky = find_enlarger("kandinsky-6-vsr")
    assert verdict(kandinsky, READY).how == "plain"
    assert not verdict(kandinsky, dataclasses.replace(READY, triton=False, vram_total=40 * GB)).fits
    assert not verdict(kandinsky, _machine(ram=64)).fits


def test_what_is_compiled_is_not_offloaded_layer_by_layer() -> None:
    asked = _request(WAN_LARGE)
    tight = next(
        card
        for card in (dataclasses.replace(READY, vram_free=vram * GB // 4) for vram in range(1, 320))
        if _offload_of(asked, card) == "sequential"
    )
    with pytest.raises(DoesNotFit, match="Leave compile off"):
        place(WAN_LARGE, asked.model_copy(update={"compile": True}), tight)


def _offload_of(request: GenerationRequest, machine: Machine) -> str | None:
    """How the large model is offloaded; None where it is not made."""
    try:
        return place(WAN_LARGE, request, machine).offload
    except DoesNotFit:
        return None


def test_attention_is_computed_by_what_is_installed_and_by_torch_itself_where_nothing_was_asked() -> None:
    def backend(asked: str, machine: Machine, **fields: Any) -> str:
        preset, request = _wan(attention_backend=asked, **fields)
        return place(preset, request, machine).attention_backend

    pocket = find_preset("pocket")
    assert place(pocket, _request(pocket), LAPTOP).attention_backend == "native"
    assert backend("auto", READY) == backend("native", READY) == "native"
    assert backend("sage", READY) == "sage"
    assert backend("_native_cudnn", WORKSTATION) == "_native_cudnn"
    for asked, machine, fields, why in (
        ("flash", LAPTOP, {}, "graphics card"),
        ("flash", WORKSTATION, {}, "flash_attn, which is not installed"),
        ("_flash_3", READY, {}, "flash_attn_interface, which is not installed"),
        ("flash", READY, {"torch_dtype": "float32"}, "float32"),
    ):
        with pytest.raises(RequestError, match=why) as refused:
            backend(asked, machine, **fields)
        assert refused.value.field == "attention_backend"
