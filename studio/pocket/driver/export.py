"""A trained driver becomes a folder that `DrivingPipeline.from_pretrained` reads, in two files of which one is shared.

The transformer lies in two shards: the first is the text-to-video pocket's own file, byte for byte, so that git and
every cache keep it once; the second holds the control blocks. Autoencoder, text encoder, tokenizer and scheduler are
copies as well. Knows diffusers' folder layout. Refuses to know how the weights came about.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from studio.pocket.driver.architecture import grow, is_control
from studio.pocket.export import CHECKSUMS, load_pipeline, weight_files
from studio.storage import sha256_of

SHARED = ("vae", "text_encoder", "tokenizer", "scheduler")
_STEM = "diffusion_pytorch_model"
SHARDS = (f"{_STEM}-00001-of-00002.safetensors", f"{_STEM}-00002-of-00002.safetensors")


def export(state: Path, destination: Path, *, base: Path, report: Callable[[Any], None]) -> None:
    """Write the checkpoint in half precision, with its checksums.

    Args:
        state: The grown transformer's weights.
        base: The text-to-video pocket.
    """
    import torch
    from safetensors.torch import load_file, save_file

    pipe: Any = load_pipeline(base)
    model = grow(pipe.transformer)
    model.load_state_dict(torch.load(state, map_location="cpu", weights_only=True))
    transformer = destination / "transformer"
    for name in SHARED:
        shutil.copytree(base / name, destination / name, dirs_exist_ok=True)
    transformer.mkdir(parents=True, exist_ok=True)
    own = base / "transformer" / f"{_STEM}.safetensors"
    shutil.copyfile(own, transformer / SHARDS[0])
    control = {name: tensor.half().contiguous() for name, tensor in model.state_dict().items() if is_control(name)}
    save_file(control, transformer / SHARDS[1], metadata={"format": "pt"})
    model.save_config(transformer)
    shards = (load_file(own), control)
    listed = {name: shard for shard, tensors in zip(SHARDS, shards, strict=True) for name in tensors}
    size = sum(tensor.numel() * tensor.element_size() for tensors in shards for tensor in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(listed.items()))}
    (transformer / f"{_STEM}.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")
    written = json.loads((base / "model_index.json").read_text())
    written["_class_name"] = "DrivingPipeline"
    del written["expand_timesteps"]  # which is none of VACE's
    written["transformer"] = ["diffusers", "WanVACETransformer3DModel"]
    (destination / "model_index.json").write_text(json.dumps(written, indent=2) + "\n")
    record = json.loads((base / CHECKSUMS).read_text())
    record["sha256"] = {str(path.relative_to(destination)): sha256_of(path) for path in weight_files(destination)}
    for path in weight_files(destination):
        path.chmod(0o644)  # safetensors writes files that only their owner may read
    (destination / CHECKSUMS).write_text(json.dumps(record, indent=1) + "\n")
    added = (transformer / SHARDS[1]).stat().st_size / 1e6
    report(f"{added:.1f} MB beyond the text-to-video pocket's in {destination}")
