"""A trained pocket model becomes a folder that `WanPipeline.from_pretrained` reads, with a record that notices damage.

Knows the Hub's folder layout, half precision and checksums. Refuses to know how the weights came about.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studio.pocket.architecture import MAX_SEQUENCE_LENGTH, build_scheduler
from studio.storage import sha256_of

if TYPE_CHECKING:
    import torch
    from diffusers import AutoencoderKLWan, WanPipeline, WanTransformer3DModel
    from transformers import PreTrainedTokenizerFast, UMT5EncoderModel

CHECKSUMS = "checksums.json"
"""File in the checkpoint's folder: sha256 of every weight file and the token ids of a few captions."""


class DamagedCheckpoint(ValueError):
    """A file of the checkpoint is missing or is not the one that was written."""


def save_pipeline(
    folder: Path,
    *,
    tokenizer: PreTrainedTokenizerFast,
    text_encoder: UMT5EncoderModel,
    vae: AutoencoderKLWan,
    transformer: WanTransformer3DModel,
    captions: Sequence[str],
    flow_shift: float,
    dtype: torch.dtype,
) -> Path:
    """Write every part in `dtype`, then the checksums. The models given are cast in place."""
    from diffusers import WanPipeline

    # A tokenizer writes down how it was last called, and would pad whoever calls it next.
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    pipeline = WanPipeline(
        tokenizer=tokenizer,  # type: ignore[arg-type]  # annotated T5TokenizerFast upstream; any fast tokenizer serves
        text_encoder=_cast(text_encoder, dtype),
        vae=_cast(vae, dtype),
        transformer=_cast(transformer, dtype),
        scheduler=build_scheduler(flow_shift),  # type: ignore[arg-type]  # upstream's own default for Wan is UniPC
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
    _name_the_public_tokenizer_class(folder)
    record = {
        "max_sequence_length": MAX_SEQUENCE_LENGTH,
        "token_ids": {caption: token_ids(tokenizer, caption) for caption in captions},
        "sha256": {str(path.relative_to(folder)): sha256_of(path) for path in weight_files(folder)},
    }
    for path in weight_files(folder):
        path.chmod(0o644)  # safetensors writes files that only their owner may read
    (folder / CHECKSUMS).write_text(json.dumps(record, indent=1) + "\n")
    return folder


def verify_checkpoint(folder: Path) -> None:
    """Compare every weight file with the record; raise `DamagedCheckpoint` naming the first that differs."""
    record = json.loads((folder / CHECKSUMS).read_text())
    for name, expected in record["sha256"].items():
        path = folder / name
        if not path.is_file():
            raise DamagedCheckpoint(f"{path} is missing; restore it with `git checkout -- {path}`")
        found = sha256_of(path)
        if found != expected:
            raise DamagedCheckpoint(
                f"{path} has sha256 {found[:12]}…, not {expected[:12]}…; restore it with `git checkout -- {path}`"
            )


def load_pipeline(folder: Path, *, dtype: torch.dtype | None = None) -> WanPipeline:
    """The checkpoint as a pipeline in one precision (float32 unless said), checked for damage and missing weights."""
    import torch
    from diffusers import WanPipeline

    verify_checkpoint(folder)
    pipeline: Any = WanPipeline.from_pretrained(
        folder, use_safetensors=True, local_files_only=True, dtype=dtype or torch.float32
    )
    for name in ("text_encoder", "vae", "transformer"):
        for key, parameter in getattr(pipeline, name).named_parameters():
            if parameter.is_meta:
                raise DamagedCheckpoint(f"{folder / name} lacks the weight {key}")
    return pipeline


def token_ids(tokenizer: PreTrainedTokenizerFast, caption: str) -> list[int]:
    """Ids without padding, ended by `</s>`."""
    return list(tokenizer(caption, truncation=True, max_length=MAX_SEQUENCE_LENGTH)["input_ids"])  # type: ignore[arg-type]


def weight_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*.safetensors"))


def weight_megabytes(folder: Path) -> float:
    """Millions of bytes in the safetensors files."""
    return sum(path.stat().st_size for path in weight_files(folder)) / 1e6


def _cast(model: Any, dtype: torch.dtype) -> Any:
    # Wan keeps its norms and tables in float32 when it loads; stored in half they cost nothing and load the same.
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    return model.eval()


def _name_the_public_tokenizer_class(folder: Path) -> None:
    """transformers 5 writes the internal name `TokenizersBackend`, which version 4 does not know."""
    for name in ("model_index.json", "tokenizer/tokenizer_config.json"):
        path = folder / name
        path.write_text(path.read_text().replace("TokenizersBackend", "PreTrainedTokenizerFast"))
