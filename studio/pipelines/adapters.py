"""Low-rank updates: opened on a model, saved in diffusers' format, put back in.

Knows peft and safetensors. Refuses to know what is trained with them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import nn

from studio.pipelines.families import VideoModel
from studio.records.versions import DECODER_FILE, LORA_2_FILE, LORA_FILE
from studio.requests.training import FinetuneRequest
from studio.storage import write_atomically

NAME = "version"
PREFIX = "transformer."
"""Of every name in a file; diffusers wants the same one for a second denoiser."""
FILES = {"transformer": LORA_FILE, "transformer_2": LORA_2_FILE}
"""By component."""


def open_adapters(model: VideoModel, request: FinetuneRequest) -> dict[str, nn.Parameter]:
    """Freeze the models and open low-rank updates that change nothing yet.

    Returns:
        What is to be trained, by name, float32.
    """
    for each in model.models.values():
        each.requires_grad_(False)
    model.vae.eval()
    places: dict[str, tuple[nn.Module, str]] = {
        name: (denoiser, model.lora_pattern) for name, denoiser in model.denoisers.items()
    }
    if request.train_decoder:
        places["vae"] = (model.vae, model.decoder_targets)
    parameters: dict[str, nn.Parameter] = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(request.seed)  # peft draws the first factor
        for part, (module, layers) in places.items():
            _inject(module, layers, rank=request.lora_rank, alpha=_alpha(request))
            for name, parameter in module.named_parameters():
                if parameter.requires_grad:
                    parameter.data = parameter.data.float()
                    parameters[f"{part}.{name}"] = parameter
    return parameters


def close_adapters(model: VideoModel) -> None:
    """Take the updates out again; the models are as they were."""
    for denoiser in model.denoisers.values():
        denoiser.disable_gradient_checkpointing()
        _unwrap(denoiser)
    _unwrap(model.vae)


@contextmanager
def without_adapters(model: VideoModel) -> Iterator[None]:
    """Within it, the denoisers are what they were before."""
    layers = [layer for denoiser in model.denoisers.values() for _, layer in _wrapped(denoiser)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def save_adapters(model: VideoModel, request: FinetuneRequest, folder: Path) -> None:
    """Write the updates as they are now, so that `pipe.load_lora_weights(folder)` reads them.

    The scale, alpha / rank, is taken into the second factors: without further words a reader takes it for 1.
    """
    scale = _alpha(request) / request.lora_rank

    def written(module: Any, prefix: str) -> bytes:
        update = get_peft_model_state_dict(module, adapter_name=NAME)
        tensors = {
            f"{prefix}{name}": (tensor * scale if ".lora_B." in name else tensor).detach().cpu().contiguous()
            for name, tensor in update.items()
        }
        return save(tensors, metadata={"format": "pt", "rank": str(request.lora_rank)})

    for name, denoiser in model.denoisers.items():
        write_atomically(folder / FILES[name], written(denoiser, PREFIX))
    if request.train_decoder:
        write_atomically(folder / DECODER_FILE, written(model.vae, ""))


def load_adapter(pipe: Any, folder: Path, *, fuse: bool = True) -> None:
    """Load a version's updates into a pipeline.

    Args:
        pipe: Freshly loaded; it is dropped, not mended, when it is no longer wanted.
        folder: The version's.
        fuse: Add them to the weights, so that they cost nothing in any step; weights in 8 bits cannot take them.
    """
    for name, file in FILES.items():
        if getattr(pipe, name, None) is None:
            continue
        if not hasattr(pipe, "load_lora_weights"):
            _load_update(getattr(pipe, name), folder / file, prefix=PREFIX, fuse=fuse)
            continue
        second = {"load_into_transformer_2": True} if name == "transformer_2" else {}
        pipe.load_lora_weights(folder, weight_name=file, adapter_name=NAME, **second)
        if fuse:
            pipe.fuse_lora(components=[name])
    if fuse and hasattr(pipe, "unload_lora_weights"):
        pipe.unload_lora_weights()
    if (folder / DECODER_FILE).is_file():
        _load_update(pipe.vae, folder / DECODER_FILE, prefix="", fuse=True)


def _load_update(module: nn.Module, path: Path, *, prefix: str, fuse: bool) -> None:
    """As diffusers does, for models that it has no loader for."""
    with safe_open(path, framework="pt") as file:
        rank = int(file.metadata()["rank"])
    update = {name.removeprefix(prefix): tensor for name, tensor in load_file(path).items()}
    layers = "|".join(sorted({re.escape(name.partition(".lora_")[0]) for name in update}))
    _inject(module, layers, rank=rank, alpha=rank)
    set_peft_model_state_dict(cast(Any, module), update, adapter_name=NAME)
    if fuse:
        for _, layer in _wrapped(module):
            layer.merge()
        _unwrap(module)


def _alpha(request: FinetuneRequest) -> int:
    return request.lora_alpha or request.lora_rank


def _inject(module: nn.Module, layers: str, *, rank: int, alpha: int) -> None:
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=alpha, target_modules=layers), module, adapter_name=NAME)


def _wrapped(model: nn.Module) -> list[tuple[str, Any]]:
    """Layers that peft put its own around, by name."""
    return [(name, module) for name, module in model.named_modules() if hasattr(module, "base_layer")]


def _unwrap(model: nn.Module) -> None:
    for name, module in _wrapped(model):
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, module.base_layer)
    model.__dict__.pop("peft_config", None)
