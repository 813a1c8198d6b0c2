"""Tiny checkpoints with random weights: every family's real classes, a few thousand parameters each, made offline.

`TINY` says what there is; `save(name, folder)` writes one in diffusers' layout and `preset_for(name, folder)` is the
preset that offers it. The weights are drawn with a fixed seed, so a checkpoint is the same wherever it is made.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AllegroPipeline,
    AllegroTransformer3DModel,
    AutoencoderKL,
    AutoencoderKLAllegro,
    AutoencoderKLCogVideoX,
    AutoencoderKLHunyuanVideo,
    AutoencoderKLHunyuanVideo15,
    AutoencoderKLLTXVideo,
    AutoencoderKLMochi,
    AutoencoderKLWan,
    CogVideoXDDIMScheduler,
    CogVideoXDPMScheduler,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideo15Pipeline,
    HunyuanVideo15Transformer3DModel,
    HunyuanVideoPipeline,
    HunyuanVideoTransformer3DModel,
    LattePipeline,
    LatteTransformer3DModel,
    LTXPipeline,
    LTXVideoTransformer3DModel,
    MochiPipeline,
    MochiTransformer3DModel,
    SanaVideoPipeline,
    SanaVideoTransformer3DModel,
    UniPCMultistepScheduler,
    WanPipeline,
    WanTransformer3DModel,
    WanVACEPipeline,
    WanVACETransformer3DModel,
)
from diffusers.guiders import ClassifierFreeGuidance
from transformers import (
    ByT5Tokenizer,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    Gemma2Config,
    Gemma2Model,
    GemmaTokenizer,
    LlamaConfig,
    LlamaModel,
    LlamaTokenizer,
    Qwen2_5_VLTextConfig,
    Qwen2_5_VLTextModel,
    Qwen2Tokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
    UMT5Config,
    UMT5EncoderModel,
)

from studio.pipelines.driver import CONTROL_CHANNELS, DrivingPipeline
from studio.preset import AnyPreset, Preset

TEXT_WIDTH = 16
SCALE = 0.3
"""Size of the random weights: large enough that prompt, seed and step count all show in eight bits."""


def t5_tokenizer() -> T5Tokenizer:
    letters = [(letter, -2.0) for letter in "▁abcdefghijklmnopqrstuvwxyz,."]
    words = [(f"▁{word}", -1.0) for word in ("a", "red", "blue", "car", "road")]
    return T5Tokenizer([("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *letters, *words], extra_ids=0)


def t5_encoder() -> T5EncoderModel:
    return T5EncoderModel(T5Config(vocab_size=64, d_model=TEXT_WIDTH, d_kv=8, d_ff=16, num_layers=1, num_heads=2))


def byte_pairs(*special: str) -> dict[str, int]:
    """A vocabulary of GPT-2's printable bytes without merges, after the special tokens."""
    from tokenizers.pre_tokenizers import ByteLevel

    return {piece: index for index, piece in enumerate([*special, *sorted(ByteLevel.alphabet())])}


def wan_vae(**changes: Any) -> AutoencoderKLWan:
    z = changes.get("z_dim", 4)
    sizes = {
        "base_dim": 4,
        "z_dim": z,
        "dim_mult": [1, 2, 2],
        "num_res_blocks": 1,
        "temperal_downsample": [True, True],
        "latents_mean": [0.1] * z,
        "latents_std": [1.5] * z,
        "in_channels": 12,
        "out_channels": 12,
        "patch_size": 2,
        "scale_factor_temporal": 4,
        "scale_factor_spatial": 8,
    }
    return AutoencoderKLWan(**(sizes | changes))


def wan_transformer(channels: int = 4) -> WanTransformer3DModel:
    return WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=channels,
        out_channels=channels,
        text_dim=TEXT_WIDTH,
        freq_dim=16,
        ffn_dim=32,
        num_layers=2,
        rope_max_seq_len=32,
    )


def umt5_encoder() -> UMT5EncoderModel:
    return UMT5EncoderModel(UMT5Config(vocab_size=64, d_model=TEXT_WIDTH, d_kv=8, d_ff=16, num_layers=1, num_heads=2))


def wan() -> WanPipeline:
    return WanPipeline(
        tokenizer=t5_tokenizer(),
        text_encoder=umt5_encoder(),
        vae=wan_vae(),
        transformer=wan_transformer(),
        scheduler=UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0),
    )


def wan_two_experts() -> WanPipeline:
    """As Wan2.2 A14B: one denoiser for high noise, one for low."""
    return WanPipeline(
        tokenizer=t5_tokenizer(),
        text_encoder=umt5_encoder(),
        vae=wan_vae(),
        transformer=wan_transformer(),
        transformer_2=wan_transformer(),
        boundary_ratio=0.875,
        scheduler=UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0),
    )


def wan_vace_transformer(
    layers: int, vace_layers: list[int], channels: int = 4, control_channels: int = 2 * 4 + 8 * 8
) -> WanVACETransformer3DModel:
    return WanVACETransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=channels,
        out_channels=channels,
        text_dim=TEXT_WIDTH,
        freq_dim=16,
        ffn_dim=32,
        num_layers=layers,
        rope_max_seq_len=32,
        vace_layers=vace_layers,
        vace_in_channels=control_channels,
    )


def wan_vace() -> WanVACEPipeline:
    """As Wan2.1 VACE, but that the last hint is added behind the last block."""
    return WanVACEPipeline(
        tokenizer=t5_tokenizer(),
        text_encoder=umt5_encoder(),
        vae=wan_vae(),
        transformer=wan_vace_transformer(3, [0, 2]),
        scheduler=UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0),
    )


def wan_vace_two_experts() -> WanVACEPipeline:
    """As Wan2.2 VACE-Fun A14B: one denoiser for high noise, one for low."""
    return WanVACEPipeline(
        tokenizer=t5_tokenizer(),
        text_encoder=umt5_encoder(),
        vae=wan_vae(),
        transformer=wan_vace_transformer(2, [0]),
        transformer_2=wan_vace_transformer(2, [0]),
        boundary_ratio=0.875,
        scheduler=UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0),
    )


def wan_vace_driver() -> DrivingPipeline:
    """As the pocket driver: told its maps as planes, and frames that are kept as latents."""
    return DrivingPipeline(
        tokenizer=t5_tokenizer(),
        text_encoder=umt5_encoder(),
        vae=wan_vae(z_dim=16),
        transformer=wan_vace_transformer(2, [0], channels=16, control_channels=CONTROL_CHANNELS),
        scheduler=UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0),
    )


def wan_ti2v() -> WanPipeline:
    """As Wan2.2 TI2V-5B: a timestep for each token, and the residual autoencoder of 16 × 16 × 4."""
    vae = wan_vae(
        z_dim=6,
        dim_mult=[1, 2, 2, 2],
        temperal_downsample=[False, True, True],
        is_residual=True,
        decoder_base_dim=4,
        scale_factor_spatial=16,
    )
    return WanPipeline(
        tokenizer=t5_tokenizer(),
        text_encoder=umt5_encoder(),
        vae=vae,
        transformer=wan_transformer(channels=6),
        expand_timesteps=True,
        scheduler=UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=5.0),
    )


def ltx(timestep_conditioning: bool = False) -> LTXPipeline:
    decoder = {"decoder_inject_noise": (timestep_conditioning,) * 5, "timestep_conditioning": timestep_conditioning}
    return LTXPipeline(
        tokenizer=t5_tokenizer(),
        text_encoder=t5_encoder(),
        vae=AutoencoderKLLTXVideo(
            latent_channels=8,
            block_out_channels=(8, 8, 8, 8),
            decoder_block_out_channels=(8, 8, 8, 8),
            layers_per_block=(1,) * 5,
            decoder_layers_per_block=(1,) * 5,
            decoder_spatio_temporal_scaling=(True, True, True, False),
            upsample_residual=(False,) * 4,
            upsample_factor=(1,) * 4,
            **decoder,
        ),
        transformer=LTXVideoTransformer3DModel(
            in_channels=8,
            out_channels=8,
            num_attention_heads=2,
            attention_head_dim=8,
            cross_attention_dim=16,
            num_layers=2,
            caption_channels=TEXT_WIDTH,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True, base_shift=0.95, max_shift=2.05, shift_terminal=0.1
        ),
    )


def ltx_with_conditioned_decoder() -> LTXPipeline:
    """As LTX-Video from 0.9.1 on, whose decoder finishes the denoising and adds noise of its own."""
    return ltx(timestep_conditioning=True)


def cogvideox(rotary: bool = False) -> CogVideoXPipeline:
    scheduler = CogVideoXDPMScheduler if rotary else CogVideoXDDIMScheduler
    return CogVideoXPipeline(
        tokenizer=t5_tokenizer(),
        text_encoder=t5_encoder(),
        vae=AutoencoderKLCogVideoX(
            block_out_channels=(8, 8, 8, 8), latent_channels=4, layers_per_block=1, norm_num_groups=2
        ),
        transformer=CogVideoXTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=16,
            in_channels=4,
            out_channels=4,
            time_embed_dim=4,
            text_embed_dim=TEXT_WIDTH,
            num_layers=2,
            sample_width=4,
            sample_height=4,
            sample_frames=9,
            max_text_seq_length=16,
            use_rotary_positional_embeddings=rotary,
        ),
        scheduler=scheduler(
            prediction_type="v_prediction",
            beta_schedule="scaled_linear",
            beta_start=0.00085,
            beta_end=0.012,
            rescale_betas_zero_snr=True,
            timestep_spacing="trailing",
            snr_shift_scale=1.0,
        ),
    )


def cogvideox_5b() -> CogVideoXPipeline:
    """As CogVideoX-5b: rotary positions, the DPM sampler and dynamic guidance."""
    return cogvideox(rotary=True)


def latte() -> LattePipeline:
    return LattePipeline(
        tokenizer=t5_tokenizer(),
        text_encoder=t5_encoder(),
        vae=AutoencoderKL(
            block_out_channels=(8, 8, 8, 8),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            norm_num_groups=2,
        ),
        transformer=LatteTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=8,
            in_channels=4,
            out_channels=8,
            num_layers=2,
            cross_attention_dim=16,
            attention_bias=True,
            sample_size=8,
            patch_size=2,
            activation_fn="gelu-approximate",
            num_embeds_ada_norm=1000,
            norm_type="ada_norm_single",
            norm_elementwise_affine=False,
            norm_eps=1e-6,
            caption_channels=TEXT_WIDTH,
            video_length=16,
        ),
        scheduler=DDIMScheduler(beta_start=0.0001, beta_end=0.02, beta_schedule="linear", clip_sample=False),
    )


def hunyuanvideo() -> HunyuanVideoPipeline:
    llama_words = {
        piece: index
        for index, piece in enumerate(["<unk>", "<s>", "</s>", "<pad>", *(f"<0x{b:02X}>" for b in range(256))])
    }
    llama_tokenizer = LlamaTokenizer(llama_words, [], pad_token="<pad>")
    clip_words = byte_pairs("<|startoftext|>", "<|endoftext|>")
    clip_words |= {f"{piece}</w>": len(clip_words) + index for index, piece in enumerate(list(clip_words)[2:])}
    llama = LlamaConfig(
        vocab_size=len(llama_words),
        hidden_size=TEXT_WIDTH,
        intermediate_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        max_position_embeddings=512,
        pad_token_id=3,
    )
    clip = CLIPTextConfig(
        vocab_size=len(clip_words),
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    return HunyuanVideoPipeline(
        tokenizer=llama_tokenizer,
        text_encoder=LlamaModel(llama),
        tokenizer_2=CLIPTokenizer(clip_words, [], model_max_length=77),
        text_encoder_2=CLIPTextModel(clip),
        vae=AutoencoderKLHunyuanVideo(
            latent_channels=4, block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=2
        ),
        transformer=HunyuanVideoTransformer3DModel(
            in_channels=4,
            out_channels=4,
            num_attention_heads=2,
            attention_head_dim=12,
            num_layers=1,
            num_single_layers=2,
            num_refiner_layers=1,
            text_embed_dim=TEXT_WIDTH,
            pooled_projection_dim=8,
            rope_axes_dim=(4, 4, 4),
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
    )


CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "<|im_start|>assistant\n"
)
"""Qwen's chat template without its system default."""


def hunyuanvideo_15() -> HunyuanVideo15Pipeline:
    words = byte_pairs("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    tokenizer = Qwen2Tokenizer(words, [])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = CHAT
    qwen = Qwen2_5_VLTextConfig(
        vocab_size=len(words),
        hidden_size=TEXT_WIDTH,
        intermediate_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=2048,
        rope_parameters={"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e6},
    )
    return HunyuanVideo15Pipeline(
        tokenizer=tokenizer,
        text_encoder=Qwen2_5_VLTextModel(qwen),
        tokenizer_2=ByT5Tokenizer(),
        text_encoder_2=T5EncoderModel(
            T5Config(
                vocab_size=384, d_model=8, d_kv=4, d_ff=16, num_layers=1, num_heads=2, feed_forward_proj="gated-gelu"
            )
        ),
        guider=ClassifierFreeGuidance(guidance_scale=6.0),
        vae=AutoencoderKLHunyuanVideo15(
            latent_channels=4,
            block_out_channels=(8, 8, 8, 8),
            layers_per_block=1,
            spatial_compression_ratio=8,
            temporal_compression_ratio=4,
            downsample_match_channel=False,
            upsample_match_channel=False,
        ),
        transformer=HunyuanVideo15Transformer3DModel(
            in_channels=9,
            out_channels=4,
            num_attention_heads=2,
            attention_head_dim=12,
            num_layers=2,
            num_refiner_layers=1,
            text_embed_dim=TEXT_WIDTH,
            text_embed_2_dim=8,
            image_embed_dim=8,
            rope_axes_dim=(4, 4, 4),
            target_size=32,
            task_type="t2v",
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
    )


def mochi() -> MochiPipeline:
    return MochiPipeline(
        tokenizer=t5_tokenizer(),
        text_encoder=t5_encoder(),
        vae=AutoencoderKLMochi(
            latent_channels=12,
            encoder_block_out_channels=(32, 32, 32, 32),  # groups of 32 are fixed
            decoder_block_out_channels=(32, 32, 32, 32),
            layers_per_block=(1,) * 5,
        ),
        transformer=MochiTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=8,
            num_layers=2,
            pooled_projection_dim=16,
            text_embed_dim=TEXT_WIDTH,
            time_embed_dim=4,
            max_sequence_length=16,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(invert_sigmas=True),
    )


def allegro() -> AllegroPipeline:
    return AllegroPipeline(
        tokenizer=t5_tokenizer(),
        text_encoder=t5_encoder(),
        vae=AutoencoderKLAllegro(
            block_out_channels=(8, 8, 8, 8),
            layers_per_block=1,
            norm_num_groups=2,
            sample_size=128,  # the tiles; they overlap by up to 120
        ),
        transformer=AllegroTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=12,
            num_layers=2,
            cross_attention_dim=24,
            sample_height=16,
            sample_width=16,
            sample_frames=6,
            caption_channels=TEXT_WIDTH,
        ),
        scheduler=EulerAncestralDiscreteScheduler(
            beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, timestep_spacing="trailing"
        ),
    )


def sana_video() -> SanaVideoPipeline:
    words = {"<pad>": 0, "<eos>": 1, "<bos>": 2, "<unk>": 3, "<mask>": 4, "▁": 5, "\n": 6}
    words |= {letter: len(words) + index for index, letter in enumerate("abcdefghijklmnopqrstuvwxyz,.:->")}
    gemma = Gemma2Config(
        vocab_size=len(words),
        hidden_size=TEXT_WIDTH,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=4096,
    )
    return SanaVideoPipeline(
        tokenizer=GemmaTokenizer(words, []),
        text_encoder=Gemma2Model(gemma),
        vae=wan_vae(),
        transformer=SanaVideoTransformer3DModel(
            in_channels=4,
            out_channels=4,
            num_attention_heads=2,
            attention_head_dim=12,
            num_layers=2,
            num_cross_attention_heads=2,
            cross_attention_head_dim=12,
            cross_attention_dim=24,
            caption_channels=TEXT_WIDTH,
        ),
        scheduler=DPMSolverMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=8.0),
    )


@dataclass(frozen=True, kw_only=True)
class Tiny:
    """A checkpoint to be made, and the smallest clip it makes."""

    build: Callable[[], Any]
    height: int = 32
    width: int = 32
    frames: tuple[int, int] = (4, 1)
    """multiple_of and offset of the clip's length."""
    num_frames: int = 9
    blocks: int = 2
    """Transformer blocks in one pass."""
    defaults: dict[str, Any] = field(default_factory=dict)


TINY: dict[str, Tiny] = {
    "wan": Tiny(build=wan, defaults={"max_sequence_length": 16, "flow_shift": 3.0}),
    "wan-two-experts": Tiny(build=wan_two_experts, blocks=4, defaults={"max_sequence_length": 16, "flow_shift": 3.0}),
    "wan-vace": Tiny(build=wan_vace, blocks=5, defaults={"max_sequence_length": 16, "flow_shift": 3.0}),
    "wan-vace-two-experts": Tiny(
        build=wan_vace_two_experts, blocks=6, defaults={"max_sequence_length": 16, "flow_shift": 3.0}
    ),
    "wan-vace-driver": Tiny(build=wan_vace_driver, blocks=3, defaults={"max_sequence_length": 16, "flow_shift": 3.0}),
    "wan-ti2v": Tiny(build=wan_ti2v, height=64, width=64, defaults={"max_sequence_length": 16, "flow_shift": 5.0}),
    "ltx": Tiny(build=ltx, height=64, width=64, frames=(8, 1), defaults={"max_sequence_length": 16}),
    "ltx-conditioned": Tiny(
        build=ltx_with_conditioned_decoder, height=64, width=64, frames=(8, 1), defaults={"max_sequence_length": 16}
    ),
    "cogvideox": Tiny(build=cogvideox, defaults={"max_sequence_length": 16}),
    "cogvideox-5b": Tiny(build=cogvideox_5b, defaults={"max_sequence_length": 16}),
    "latte": Tiny(build=latte, height=64, width=64, frames=(16, 0), num_frames=16, blocks=4),
    "hunyuanvideo": Tiny(build=hunyuanvideo, blocks=3, defaults={"max_sequence_length": 16, "flow_shift": 7.0}),
    "hunyuanvideo-1.5": Tiny(build=hunyuanvideo_15, defaults={"flow_shift": 7.0}),
    "mochi": Tiny(build=mochi, frames=(6, 1), num_frames=7, defaults={"max_sequence_length": 16}),
    "allegro": Tiny(
        build=allegro, height=128, width=128, frames=(16, 8), num_frames=24, defaults={"max_sequence_length": 16}
    ),
    "sana-video": Tiny(build=sana_video, defaults={"max_sequence_length": 16, "flow_shift": 8.0}),
}


def save(name: str, folder: Path) -> Path:
    """Write a checkpoint below `folder` as safetensors in diffusers' layout."""
    tiny = TINY[name]
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(20)
        pipe = tiny.build()
        for component in pipe.components.values():
            if isinstance(component, torch.nn.Module):
                enliven(component)
        pipe.save_pretrained(folder / name, safe_serialization=True)
    return folder / name


def enliven(model: torch.nn.Module) -> None:
    """Give the parts that start at zero (gates, last layers) values too, or nothing would pass through them."""
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(0, SCALE / max(1, parameter[0].numel()) ** 0.5)


def preset_for(name: str, folder: Path) -> Preset:
    """The preset that offers the checkpoint saved in `folder`."""
    tiny = TINY[name]
    index = (folder / "model_index.json").read_text(encoding="utf-8")
    multiple_of, offset = tiny.frames
    return Preset.model_validate(
        {
            "name": name,
            "title": f"Tiny {name}",
            "summary": "Random weights.",
            "tasks": ["text-to-video", "driving"] if "vace" in name else ["text-to-video"],
            "pipeline": index.split('"_class_name": "')[1].split('"')[0],
            "torch_dtype": "float32",
            "weights": {"folder": str(folder), "licence": "Apache-2.0"},
            "size": {"multiple_of": 16, "minimum": 32, "maximum": 128},
            "frames": {"multiple_of": multiple_of, "offset": offset, "minimum": 5, "maximum": 48},
            "memory": {
                "transformer_parameters": 1,
                "text_encoder_parameters": 1,
                "vae_parameters": 1,
                "source": "Tiny.",
            },
            "defaults": {
                "height": tiny.height,
                "width": tiny.width,
                "num_frames": tiny.num_frames,
                "fps": 8,
                "num_inference_steps": 3,
                "guidance_scale": 4.0,
            }
            | tiny.defaults,
        }
    )


def write_preset(name: str, folder: Path, presets: Path) -> Path:
    """The preset of the checkpoint saved in `folder`, as a file in a catalogue of its own, for other processes."""
    return write_toml(preset_for(name, folder), presets)


def write_toml(preset: AnyPreset, presets: Path) -> Path:
    """A preset as a file in a catalogue."""

    def written(table: dict[str, Any], path: str = "") -> list[str]:
        plain = {key: value for key, value in table.items() if value is not None and not isinstance(value, dict)}
        lines = [f"[{path}]"] if path else []
        lines += [f"{key} = {json.dumps(value)}" for key, value in plain.items()]
        for key, value in table.items():
            if isinstance(value, dict):
                lines += written(value, f"{path}.{key}".lstrip("."))
        return lines

    presets.mkdir(parents=True, exist_ok=True)
    record = preset.model_dump(mode="json", exclude_defaults=True, exclude={"name"})
    file = presets / f"{preset.name}.toml"
    file.write_text("\n".join(written(record)) + "\n", encoding="utf-8")
    return file
