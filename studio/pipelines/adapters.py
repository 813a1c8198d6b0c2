"""Low-rank updates: opened on a model, saved in diffusers' format, put back in.

Knows peft and safetensors. Refuses to know what is trained with them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import nn

from studio.finetune_request import FinetuneRequest
from studio.pipelines.training import Trainable
from studio.storage import write_atomically
from studio.versions import DECODER_FILE, LORA_FILE

NAME = "version"


def open_adapters(model: Trainable, request: FinetuneRequest) -> dict[str, nn.Parameter]:
    """Freeze the models and open low-rank updates that change nothing yet.

    Returns:
        What is to be trained, by name, float32.
    """
    alpha = request.lora_alpha or request.lora_rank
    model.pipe.text_encoder.requires_grad_(False)
    model.vae.requires_grad_(False).eval()
    model.transformer.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(request.seed)  # peft draws the first factor
        model.transformer.add_adapter(
            LoraConfig(r=request.lora_rank, lora_alpha=alpha, target_modules=list(model.lora_targets)),
            adapter_name=NAME,
        )
        if request.train_decoder:
            config = LoraConfig(r=request.lora_rank, lora_alpha=alpha, target_modules=model.decoder_targets)
            inject_adapter_in_model(config, model.vae, adapter_name=NAME)
    found: dict[str, nn.Parameter] = {}
    for part, module in (("transformer", model.transformer), ("vae", model.vae)):
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
                found[f"{part}.{name}"] = parameter
    return found


def close_adapters(model: Trainable) -> None:
    """Take the updates out again; the models are as they were."""
    model.transformer.disable_gradient_checkpointing()
    if NAME in getattr(model.transformer, "peft_config", {}):
        model.transformer.delete_adapters(NAME)
    _unwrap(model.vae)


def save_adapters(model: Trainable, request: FinetuneRequest, folder: Path) -> None:
    """Write the updates as they are now, so that `pipe.load_lora_weights(folder)` reads them.

    The scale, alpha / rank, is taken into the second factors: without further words a reader takes it for 1.
    """
    scale = (request.lora_alpha or request.lora_rank) / request.lora_rank

    def written(module: Any, prefix: str) -> bytes:
        update = get_peft_model_state_dict(module, adapter_name=NAME)
        tensors = {
            f"{prefix}{name}": (tensor * scale if ".lora_B." in name else tensor).detach().cpu().contiguous()
            for name, tensor in update.items()
        }
        return save(tensors, metadata={"format": "pt", "rank": str(request.lora_rank)})

    write_atomically(folder / LORA_FILE, written(model.transformer, "transformer."))
    if request.train_decoder:
        write_atomically(folder / DECODER_FILE, written(model.vae, ""))


def put_in(pipe: Any, folder: Path, *, fuse: bool = True) -> None:
    """Load a version's updates into a pipeline.

    Args:
        pipe: Freshly loaded; it is dropped, not mended, when it is no longer wanted.
        folder: The version's.
        fuse: Add them to the weights, so that they cost nothing in any step; weights in 8 bits cannot take them.
    """
    pipe.load_lora_weights(folder, weight_name=LORA_FILE, adapter_name=NAME)
    if fuse:
        pipe.fuse_lora()
        pipe.unload_lora_weights()
    if (folder / DECODER_FILE).is_file():
        _put_in_decoder(pipe.vae, folder / DECODER_FILE)


def _put_in_decoder(vae: nn.Module, path: Path) -> None:
    with safe_open(path, framework="pt") as file:
        rank = int(file.metadata()["rank"])
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=Trainable.decoder_targets)
    inject_adapter_in_model(config, vae, adapter_name=NAME)
    set_peft_model_state_dict(cast(Any, vae), load_file(path), adapter_name=NAME)
    for _, module in _wrapped(vae):
        module.merge()
    _unwrap(vae)


def _wrapped(model: nn.Module) -> list[tuple[str, Any]]:
    """Layers that peft put its own around, by name."""
    return [(name, module) for name, module in model.named_modules() if hasattr(module, "base_layer")]


def _unwrap(model: nn.Module) -> None:
    for name, module in _wrapped(model):
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, module.base_layer)
