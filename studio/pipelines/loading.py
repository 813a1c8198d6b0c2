"""Loading: a folder of weights, checked, becomes the pipeline in the single slot.

Knows diffusers' folder layout, what must be true of it before it is trusted, and what must be true of the models
afterwards. Refuses to know the network: a folder is given, ships with the preset, or lies in the Hub's cache.

safetensors only, no code from a checkpoint, and only the classes its family names. diffusers leaves a tensor that is
missing from a file on the meta device with no more than a warning, and transformers draws it at random, so both are
asked what they could not find.
"""

from __future__ import annotations

import gc
import importlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from studio.errors import PresetError, RequestError, StudioError, WeightsCorrupt, WeightsMissing
from studio.events import Placement
from studio.family import Checkpoint, Family
from studio.machine import placement as placing
from studio.machine import weights
from studio.machine.hardware import Machine, int8_backend
from studio.pipelines import schedules
from studio.pipelines.compiling import compile_blocks
from studio.pipelines.loaded import LoadedModel, LoadedPipeline, out_of_memory
from studio.pipelines.planar import make_planar
from studio.preset import Preset
from studio.requests.generation import GenerationRequest
from studio.storage import sha256_of

CHECKSUMS = "checksums.json"
"""Beside model_index.json where a checkpoint ships with the studio: `sha256`, the digest of each file, and `token_ids`,
what its tokenizer must make of a few prompts (another version of the tokenizer's library may read it differently)."""
MAX_JSON_BYTES = 16 * 2**20

TOKENIZERS = frozenset(
    {
        "ByT5Tokenizer",
        "CLIPTokenizer",
        "CLIPTokenizerFast",
        "GemmaTokenizer",
        "GemmaTokenizerFast",
        "LlamaTokenizer",
        "LlamaTokenizerFast",
        "PreTrainedTokenizerFast",
        "Qwen2Tokenizer",
        "Qwen2TokenizerFast",
        "T5Tokenizer",
        "T5TokenizerFast",
        "TokenizersBackend",
    }
)
"""Tokenizer classes a checkpoint may name."""

Loaded = TypeVar("Loaded", bound=LoadedModel)

_slot: LoadedModel | None = None
"""The one loaded model. A second would double the memory for a machine that makes one clip at a time."""
_attention = "native"
"""The attention backend that diffusers was told last."""


def place(preset: Preset, request: GenerationRequest, machine: Machine) -> Placement:
    """Decide where and how a request runs; what the loaded model holds counts as free.

    Raises:
        DoesNotFit: no way of running it here, with the numbers.
        RequestError: something was asked for that this machine does not have.
    """
    return placing.place(preset, request, machine, held_bytes=_held_bytes())


def load(
    preset: Preset,
    placement: Placement,
    *,
    folder: Path | None = None,
    adapter: Path | None = None,
    check: Callable[[], None] = lambda: None,
) -> LoadedPipeline:
    """The preset's pipeline, placed; the one that is loaded already where it is the same.

    Args:
        folder: The checkpoint in diffusers' layout; None takes the preset's own folder or the Hub's cache.
        adapter: Folder of a fine-tuned version, whose update is put in.
        check: Called between components and tensors; what it raises ends the loading, and nothing stays loaded.

    Raises:
        WeightsMissing: no checkpoint there.
        WeightsCorrupt: damaged, incomplete, of other classes, or not finite; the file is named.
        OutOfMemory: it did not fit after all.
    """
    return _load(LoadedPipeline, preset, placement, folder, adapter, check)


def load_model(
    preset: Preset, placement: Placement, *, folder: Path | None = None, check: Callable[[], None] = lambda: None
) -> LoadedModel:
    """As `load`, for a preset that makes no clips of prompts: its pipeline is for the caller to call."""
    return _load(LoadedModel, preset, placement, folder, None, check)


def _load(
    kind: type[Loaded],
    preset: Preset,
    placement: Placement,
    folder: Path | None,
    adapter: Path | None,
    check: Callable[[], None],
) -> Loaded:
    global _slot
    folder = (folder or weights.folder_of(preset)).resolve()
    if isinstance(_slot, kind) and _slot.holds(preset, placement, folder, adapter):
        _slot.set_tiling(placement)
        return _slot
    unload()
    with out_of_memory(f"loading {preset.title}"):
        pipe = read_pipeline(preset, preset.checkpoint, placement, folder, check)
        check()
        if adapter is not None:
            _load_adapter(pipe, adapter, placement)
        loaded = kind(preset=preset, placement=placement, folder=folder, adapter=adapter, pipe=pipe)
        set_attention(loaded, placement.attention_backend)
        if placement.compile:
            compile_blocks(loaded.blocks)  # before offloading's hooks, which stay outside
        _place(pipe, placement)
    _slot = loaded
    loaded.set_tiling(placement)
    return loaded


def unload() -> None:
    """Drop the loaded model and give its memory back."""
    global _slot
    if _slot is None:
        return
    _slot = None
    gc.collect()  # pipelines and their hooks hold each other in cycles
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _held_bytes() -> int:
    if _slot is None:
        return 0
    if _slot.placement.device == "cuda" and torch.cuda.is_available():
        return torch.cuda.memory_reserved()
    return sum(_bytes_of(model) for model in _slot.models.values())


def _bytes_of(model: nn.Module) -> int:
    tensors = [*model.parameters(), *model.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


# What must be true of the folder before it is read


def check_folder(preset: Preset, family: Checkpoint, folder: Path) -> dict[str, tuple[str, str]]:
    """Components as {name: (library, class)}, once everything in the folder may be trusted.

    Raises:
        WeightsMissing: no checkpoint there.
        WeightsCorrupt: not a checkpoint of this family, incomplete, or not what its checksums say.
    """
    first = next((part.path for part in family.parts.values()), "model_index.json")
    if not (folder / first).exists():
        raise WeightsMissing(
            f"No checkpoint of {preset.title}: {folder / first} is not there.",
            field=str(folder),
            way_out="Check the folder, or fetch the weights again.",
        )
    components = _components(preset, family, folder)
    for name, (library, _) in components.items():
        place = _place_of(family, folder, name)
        if place.suffix == ".safetensors":
            _check_tensor_file(place)
            continue
        if not place.is_dir():
            raise _corrupt(place, "is named in model_index.json and not there" if not family.parts else "is missing")
        if any(place.glob("*.py")):
            raise _corrupt(place, "holds code, and code from a checkpoint is never run")
        if _is_model(name):
            _check_tensor_files(place, library, _variant_of(place, preset))
    check_sums(folder)
    return components


def _place_of(family: Checkpoint, folder: Path, component: str) -> Path:
    """The folder or file that a component lies in."""
    return folder / (family.parts[component].path if family.parts else component)


def _components(preset: Preset, family: Checkpoint, folder: Path) -> dict[str, tuple[str, str]]:
    if family.parts:
        return {name: (part.library, part.kind) for name, part in family.parts.items()}
    path = folder / "model_index.json"
    index = _read_json(path)
    if index.get("_class_name") != preset.pipeline:
        raise _corrupt(path, f"is for {str(index.get('_class_name'))[:60]!r}, and the preset for {preset.pipeline}")
    components: dict[str, tuple[str, str]] = {}
    for name, entry in index.items():
        if name.startswith("_") or not isinstance(entry, list):
            continue
        if entry == [None, None]:
            continue  # an optional part that this checkpoint does without
        allowed = _allowed(family, name)
        libraries = ("diffusers", "transformers", family.library, *_GUIDERS)
        if len(entry) != 2 or entry[0] not in libraries or entry[1] not in allowed:
            raise _corrupt(path, f"names {str(entry)[:80]} as {name}; known there: {', '.join(sorted(allowed))}")
        components[name] = (entry[0], entry[1])
    if missing := family.required - components.keys():
        raise _corrupt(path, f"has no {', '.join(sorted(missing))}")
    return components


_GUIDERS = ("diffusers.guiders.classifier_free_guidance", "guiders")
"""Libraries under which diffusers writes a guider down."""


def _allowed(family: Checkpoint, name: str) -> frozenset[str]:
    if known := family.classes_of(name):
        return known
    if name in ("tokenizer", "tokenizer_2"):
        return TOKENIZERS
    return frozenset(schedules.SCHEDULERS) if name == "scheduler" else frozenset()


_MODELS = frozenset({"latent_upsampler", "latent_upscaler", "prompt", "transformer", "transformer_2", "vae"})
"""Components with tensors, besides text encoders."""


def _is_model(name: str) -> bool:
    return name in _MODELS or name.startswith("text_encoder")


def _variant_of(folder: Path, preset: Preset) -> str | None:
    """The preset's variant where this component has files of it; not every component need have."""
    variant = preset.weights.variant
    return variant if variant and any(folder.glob(f"*.{variant}*.safetensors")) else None


def _check_tensor_files(folder: Path, library: str, variant: str | None) -> None:
    """Every safetensors file that the folder promises is there and whole: its header is read, its values are not."""
    _read_json(folder / "config.json")
    stem = "model" if library == "transformers" else "diffusion_pytorch_model"
    marked = f".{variant}" if variant else ""
    index = folder / f"{stem}.safetensors.index{marked}.json"
    if index.is_file():
        weight_map = _read_json(index).get("weight_map", {})
        names = sorted(set(weight_map.values())) if isinstance(weight_map, dict) else []
        if not names or not all(
            isinstance(name, str) and re.fullmatch(r"[\w.-]+\.safetensors", name) for name in names
        ):
            raise _corrupt(index, "does not list safetensors files beside it")
    else:
        names = [f"{stem}{marked}.safetensors"]
    for name in names:
        _check_tensor_file(folder / name)


def _check_tensor_file(path: Path) -> None:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        pickles = sorted(other.name for other in path.parent.glob("*.bin"))
        also = f" ({', '.join(pickles)} may hold code and is never opened)" if pickles else ""
        raise _corrupt(path, f"is missing{also}")
    try:
        with safe_open(path, framework="pt") as file:
            file.keys()
    except (SafetensorError, OSError, ValueError) as error:
        raise _corrupt(path, f"cannot be read: {error}") from error


def check_sums(folder: Path) -> None:
    """Raises WeightsCorrupt where a file is not what the checksums beside it say; where there are none, nothing is."""
    path = folder / CHECKSUMS
    if not path.is_file():
        return
    sums = _read_json(path).get("sha256")
    if not isinstance(sums, dict) or not sums:
        raise _corrupt(path, "lists no checksums")
    for name, expected in sums.items():
        file = (folder / str(name)).resolve()
        if folder.resolve() not in file.parents or not file.is_file():
            raise _corrupt(folder / str(name), f"is listed in {CHECKSUMS} and not there")
        actual = sha256_of(file)
        if actual != expected:
            raise _corrupt(file, f"is not what {CHECKSUMS} says: {actual[:12]}… instead of {str(expected)[:12]}…")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise _corrupt(path, "is too large to be what it should be")
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _corrupt(path, f"cannot be read: {error}") from error
    if not isinstance(record, dict):
        raise _corrupt(path, "is not a record")
    return record


def _corrupt(path: Path, fault: str) -> WeightsCorrupt:
    return WeightsCorrupt(f"{path} {fault}.", field=str(path), way_out="Fetch the weights again, or repair the folder.")


# Reading


def read_pipeline(
    preset: Preset, family: Checkpoint, placement: Placement, folder: Path, check: Callable[[], None] = lambda: None
) -> Any:
    """The pipeline that a folder of weights holds, of diffusers' classes or of the family's library; not yet placed.

    Raises:
        WeightsMissing, WeightsCorrupt: as `load` says.
        PresetError: a sampler that the studio cannot follow.
    """
    import diffusers
    import transformers

    # Their bars would draw over whatever the doors show.
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    components = check_folder(preset, family, folder)
    models: dict[str, nn.Module] = {}
    for name, (library, class_name) in components.items():
        if _is_model(name):
            check()
            kind, place = _class_of(library, class_name), _place_of(family, folder, name)
            models[name] = _read_model(kind, place, name, placement, _variant_of(place, preset))
            _check_values(models[name], place, check)
    try:
        pipe = _put_together(family, folder, components, models)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise _corrupt(folder, f"cannot be put together: {_first_line(error)}") from error
    if isinstance(family, Family):  # whose steps are followed one by one
        unknown = schedules.why_unknown(pipe.scheduler)
        if unknown is not None:
            raise PresetError(f"{preset.title} cannot be followed: {unknown}.", field="scheduler", value=str(folder))
        _check_words(pipe.tokenizer, folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _put_together(
    family: Checkpoint, folder: Path, components: dict[str, tuple[str, str]], models: dict[str, nn.Module]
) -> Any:
    kind = _class_of(family.library, family.pipeline)
    if family.parts:
        return kind(**models)
    if family.library == "diffusers":
        return kind.from_pretrained(folder, use_safetensors=True, local_files_only=True, **models)
    # diffusers looks up each class in the module that the index names, and knows no library within a package.
    others = {
        name: _class_of(*where).from_pretrained(folder / name, local_files_only=True)
        for name, where in components.items()
        if name not in models
    }
    index = _read_json(folder / "model_index.json")
    settings = {name: value for name, value in index.items() if name[0] != "_" and not isinstance(value, list)}
    return kind(**models, **others, **settings)


def _class_of(library: str, name: str) -> Any:
    try:
        return getattr(importlib.import_module(library), name)
    except (ImportError, AttributeError) as error:
        raise PresetError(
            f"The installed {library.partition('.')[0]} has no {name}.",
            field="pipeline",
            value=name,
            way_out="Install the newest that the project allows: pip install -U diffusers transformers",
        ) from error


def _load_adapter(pipe: Any, adapter: Path, placement: Placement) -> None:
    from studio.pipelines.adapters import load_adapter  # peft takes its time, and most clips need none

    try:
        load_adapter(pipe, adapter, fuse=placement.quantization == "none")
    except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise _corrupt(adapter, f"does not fit this model: {_first_line(error)}") from error


def _read_model(kind: Any, folder: Path, name: str, placement: Placement, variant: str | None) -> nn.Module:
    dtype = getattr(torch, placement.vae_dtype if name == "vae" else placement.torch_dtype)
    if folder.suffix == ".safetensors":
        return _read_file(kind, folder).to(dtype).eval()
    more: dict[str, Any] = {"variant": variant}
    if name.startswith("transformer") and placement.quantization == "int8":
        more["quantization_config"] = _int8_config(placement.device)
    try:
        model, info = kind.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, local_files_only=True, output_loading_info=True, **more
        )
    except (torch.OutOfMemoryError, MemoryError, StudioError):
        raise
    except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise _corrupt(folder, f"cannot be read as {kind.__name__}: {_first_line(error)}") from error
    for fault in ("missing_keys", "mismatched_keys"):
        if names := sorted(str(key) for key in info.get(fault, ())):
            what = "lacks" if fault == "missing_keys" else "has other shapes for"
            raise _corrupt(folder, f"{what} {len(names)} tensors of its {kind.__name__}, the first {names[0]}")
    return model.eval()


def _read_file(kind: Any, path: Path) -> nn.Module:
    """A model of our own that knows its tensors' names, from a file without a configuration beside it."""
    from safetensors.torch import load_file

    try:
        return kind.of_tensors(load_file(path))
    except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise _corrupt(path, f"does not hold the tensors of {kind.__name__}: {_first_line(error)}") from error


def _check_values(model: nn.Module, folder: Path, check: Callable[[], None]) -> None:
    """No tensor without values, none with NaN or infinity, and a text encoder that knows its words."""
    for key, tensor in [*model.named_parameters(), *model.named_buffers()]:
        check()
        if tensor.is_meta:
            raise _corrupt(folder, f"lacks {key}")
        if type(tensor.data) is not torch.Tensor:
            tensor = tensor.dequantize()  # 8 bits, a class of the library that made them
        # A sum is one pass without a copy; it is infinite for honest values only where they overflow, so look closer.
        if tensor.is_floating_point() and not torch.isfinite(tensor.sum()) and not torch.isfinite(tensor).all():
            raise _corrupt(folder, f"holds NaN or infinity in {key}")
    # transformers 5 before February 2026 read UMT5's embedding as zeros, and every prompt meant the same.
    embedding = getattr(model, "get_input_embeddings", lambda: None)()
    if isinstance(embedding, nn.Embedding) and not embedding.weight.any():
        raise _corrupt(folder, "was read with an embedding of zeros")


def _check_words(tokenizer: Any, folder: Path) -> None:
    path = folder / CHECKSUMS
    expected = _read_json(path).get("token_ids", {}) if path.is_file() else {}
    for prompt, ids in expected.items():
        if list(tokenizer(prompt).input_ids) != ids:
            raise _corrupt(folder / "tokenizer", f"does not read {prompt[:40]!r} as it did when the model was trained")


def _int8_config(device: str) -> Any:
    if int8_backend(device) == "torchao":
        from diffusers.quantizers.quantization_config import TorchAoConfig
        from torchao.quantization import Int8WeightOnlyConfig  # pyright: ignore[reportMissingImports]

        return TorchAoConfig(Int8WeightOnlyConfig())
    from diffusers.quantizers.quantization_config import BitsAndBytesConfig

    return BitsAndBytesConfig(load_in_8bit=True)


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n", maxsplit=1)[0][:300] or type(error).__name__


# Placing


def _place(pipe: Any, placement: Placement) -> None:
    device = torch.device(placement.device)
    if device.type == "cpu":
        _own_the_memory(pipe)
    if placement.channels_last:
        _channels_last(pipe.vae)
    if placement.planar:
        make_planar(pipe.vae)
    if placement.offload == "model":
        pipe.enable_model_cpu_offload(device=device)
    elif placement.offload in ("group", "sequential"):
        # Sequential is diffusers' leaf-level groups, not accelerate's hooks: those fail on tied embeddings.
        blocks = placement.offload == "group"
        streams = device.type == "cuda"
        pipe.enable_group_offload(
            onload_device=device,
            offload_type="block_level" if blocks else "leaf_level",
            num_blocks_per_group=1 if blocks else None,
            use_stream=streams,
            low_cpu_mem_usage=streams,  # pins what is on its way, instead of a second copy of everything
            exclude_modules=["vae"] if blocks else None,
        )
        if blocks:
            pipe.vae.to(device)
    elif device.type != "cpu":
        pipe.to(device)


def set_attention(loaded: LoadedModel, backend: str) -> None:
    """Let the denoisers attend by a backend. diffusers remembers the last one, for the models that come after, too.

    Raises:
        RequestError: another one than torch's own, which this model's layers do not know.
    """
    global _attention
    if backend == _attention == "native":
        return
    for transformer in loaded.transformers:
        model: Any = transformer
        if any(hasattr(getattr(module, "processor", None), "_attention_backend") for module in model.modules()):
            model.set_attention_backend(backend)
            _attention = backend
        elif backend != "native":
            raise RequestError(
                f"The attention layers of {loaded.preset.title} know torch's own backend alone.",
                field="attention_backend",
                value=backend,
                way_out="Leave attention_backend at auto.",
            )


def _own_the_memory(pipe: Any) -> None:
    """Copy the weights out of the mapped files.

    A file replaced under a running studio would change its model, and the processor's kernels give other last bits for
    memory that lies otherwise; a copy always lies the same.
    """
    for component in pipe.components.values():
        if not isinstance(component, nn.Module):
            continue
        for tensor in [*component.parameters(), *component.buffers()]:
            if type(tensor.data) is torch.Tensor:  # weights in 8 bits are their own classes, made in memory
                tensor.data = tensor.data.clone()


def _channels_last(vae: nn.Module) -> None:
    """Convolution weights channels-last; activations follow them.

    By hand, because `module.to(memory_format=...)` refuses a model that has both 2D and 3D convolutions.
    """
    for module in vae.modules():
        if isinstance(module, nn.Conv3d):
            module.weight.data = module.weight.data.to(memory_format=torch.channels_last_3d)
        elif isinstance(module, nn.Conv2d):
            module.weight.data = module.weight.data.to(memory_format=torch.channels_last)
