"""Families: what is so of each video pipeline, without torch.

One row a pipeline class, in one of two tables: those that make clips of prompts, and those that enlarge clips. The
form, the checks, the placement, the caches, training and the model card ask here; how a family's pipeline is called,
and what its latents are, is in the file of its name in `pipelines/families/`, and for those that enlarge in
`super_resolve/engines/`. Class names of a family stand in these places alone.

Knows facts. Refuses to know models, files and memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal, TypeVar

from studio.errors import PresetError

Branches = Literal["separate", "batched", "none"]
"""How classifier-free guidance runs: two passes a step (cond, then uncond), one pass of two (uncond first), or one."""
Layout = Literal["BCFHW", "BFCHW", "tokens"]
"""How latents are laid out for a pass: channels before frames, frames before channels, or a row of tokens (B, N, C)."""
TokenOrder = Literal["picture first", "words first", "folded"]
"""In a block's residual, where the picture's tokens are beside the prompt's; folded: frames (and in temporal blocks
places) are samples of the batch, and there are no words among them."""
NoiseScale = Literal["share", "variance kept", "signal kept"]
"""What a noise level s is: the noise's share (flow matching), a deviation beside a signal of √(1 − s²), or a deviation
beside a signal of 1."""
Decoding = Literal["causal", "tiles", "fixed tiles", "whole"]
"""How the autoencoder decodes: group after group of frames with caches handed on; overlapping tiles in time; tiles of a
fixed size in time and space; or a clip as a whole, through which no gradient of pixels is taken."""
Condition = Literal["source", "control"]
"""A request's field: a clip or picture, or maps."""
Row = TypeVar("Row")
LoraLoader = Literal["pipeline", "transformer", "none"]
"""What of diffusers loads a low-rank update: the pipeline, its transformer alone, or nothing."""

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
JOINT_ATTENTION = (*ATTENTION, "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
"""Of blocks in which text and clip attend to each other, each by layers of its own."""
FEED_FORWARD = ("ff.net.0.proj", "ff.net.2")
JOINT_FEED_FORWARD = (*FEED_FORWARD, "ff_context.net.0.proj", "ff_context.net.2")

_TURNS = "its tokens are turned about from block to block, and this method adds up what all blocks did in one shape."
_APART = "it runs the guided and the unguided branch one after the other, and the method needs both at once."
_HINTS = "what its control blocks say is added between the blocks that this method skips, and would count twice."
_TOKENS = "the method takes frames apart by frequency, and this model has a row of tokens."


_COUNTED_BY = {"single_transformer_blocks": "num_single_layers", "vace_blocks": "vace_layers"}
"""By list of blocks, what of a transformer's configuration counts or lists them where it is not num_layers."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of a checkpoint that has no index of its pipeline."""

    path: str
    """A folder in diffusers' layout, or a file of tensors, below the checkpoint's folder."""
    library: str
    kind: str
    """The class."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What a folder of weights holds, whatever its pipeline is for."""

    pipeline: str
    """The class's name."""
    library: str = "diffusers"
    """The module that has the pipeline's and its transformer's classes: diffusers, or one of our own."""
    components: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Components besides the usual ones, and the classes they may name."""
    parts: Mapping[str, Part] = field(default_factory=dict)
    """By component, where it lies and what it is; empty where the checkpoint's own index says so."""
    vae_float32: bool = False
    """Whether the autoencoder is meant to run in float32 on an accelerator, as the model card says."""
    decodes_in_tiles_only: bool = False
    """Whether diffusers decodes this family in tiles only, whatever is asked for."""
    block_lists: tuple[str, ...] = ()
    """The transformer's lists of blocks, in the order of a pass."""
    control_blocks: str = ""
    """The first of these lists, where its blocks have a stream of their own and return hints, which the transformer
    adds to the others' stream between them; empty where all share one stream."""

    @property
    def required(self) -> frozenset[str]:
        """Components without which there is no pipeline."""
        raise NotImplementedError

    def classes_of(self, component: str) -> frozenset[str]:
        """The classes that a component may be of; none where only its kind is known (tokenizers, samplers)."""
        return self.components.get(component, frozenset())

    def num_blocks(self, configuration: Mapping[str, object]) -> int | None:
        """How many blocks a transformer of this configuration has; None where it does not say."""
        said = [configuration.get(_COUNTED_BY.get(name, "num_layers")) for name in self.block_lists]
        counts = [len(count) if isinstance(count, (list, tuple)) else count for count in said]
        known = [count for count in counts if isinstance(count, int)]
        return sum(known) if len(known) == len(counts) else None


@dataclass(frozen=True, kw_only=True)
class Family(Checkpoint):
    """What is so of one pipeline class that makes clips of prompts."""

    transformer: str
    vae: frozenset[str]
    text_encoders: frozenset[str]

    branches: Branches
    """How guidance runs; at a guidance scale of 1 or less there is one branch whatever this says."""
    negative_prompt: bool = True
    """Whether there is a second pass to negate with."""
    conditions: frozenset[Condition] = frozenset()
    """Which files of a request its pipeline starts from or keeps to, besides the prompt."""

    blocks_alternate: bool = False
    """Whether a pass takes one block from each list in turn, instead of list after list."""
    layout: Layout = "BCFHW"
    tokens: TokenOrder = "picture first"
    noise: NoiseScale = "share"
    block_outputs: tuple[int, int | None] | None = None
    """Where in what a block returns the picture's stream is, and the words'; None where diffusers has registered it."""
    gated_by_table: bool = False
    """Whether a block multiplies what self-attention and feed-forward add by rows 2 and 5 of six: its own table plus
    the time embedding. Where it gates by other means or not at all, residuals are known as they leave the layer."""
    refused_caches: Mapping[str, str] = field(default_factory=dict)
    """By a cache's `method`, why it does not work here: a clause about the model."""

    decoding: Decoding

    lora_targets: tuple[str, ...] = (*ATTENTION, *FEED_FORWARD)
    """Linear layers of a block that take a low-rank update."""
    lora_loader: LoraLoader = "pipeline"
    decoder_lora: bool = False
    """Whether the decoder can learn as well."""

    @property
    def required(self) -> frozenset[str]:
        return frozenset({"transformer", "vae", "scheduler", "tokenizer", "text_encoder"})

    def classes_of(self, component: str) -> frozenset[str]:
        if component in self.components:
            return self.components[component]
        if component in ("transformer", "transformer_2"):
            return frozenset({self.transformer})
        if component in ("text_encoder", "text_encoder_2"):
            return self.text_encoders
        return self.vae if component == "vae" else frozenset()

    @property
    def objectives(self) -> tuple[Literal["latent", "pixel", "mixed"], ...]:
        """What it can be fine-tuned by; a decoder that takes a clip as a whole leaves the model's own loss."""
        return ("latent",) if self.decoding == "whole" else ("latent", "pixel", "mixed")

    def why_not_cached(self, method: str) -> str | None:
        """Why a cache method does not work on this family, as a clause; None where it does."""
        return self.refused_caches.get(method)


@dataclass(frozen=True, kw_only=True)
class SuperResolver(Checkpoint):
    """What is so of one pipeline class that enlarges clips."""

    engine: Literal["dove", "kandinsky", "ltx", "swiftvr"]
    """The file in `super_resolve/engines/` that calls it."""
    optional: frozenset[str] = frozenset()
    """Components that a checkpoint may do without."""
    uncached: str
    """Why there is nothing for a cache to save, as a clause about the model."""

    @property
    def required(self) -> frozenset[str]:
        return frozenset(self.parts or self.components) - self.optional

    def why_not_cached(self, method: str) -> str:
        """Why a cache method does not work on this model, as a clause."""
        return self.uncached


def family_of(pipeline: str) -> Family:
    """The family of a pipeline class that makes clips of prompts.

    Raises:
        PresetError: a pipeline class the studio does not call.
    """
    return _row(pipeline, FAMILIES, "to make clips with")


def super_resolver_of(pipeline: str) -> SuperResolver:
    """The row of a pipeline class that enlarges clips.

    Raises:
        PresetError: a pipeline class the studio does not call.
    """
    return _row(pipeline, SUPER_RESOLVERS, "to enlarge clips with")


def _row(pipeline: str, table: Mapping[str, Row], purpose: str) -> Row:
    if pipeline not in table:
        raise PresetError(
            f"The studio has no pipeline {pipeline} {purpose}.",
            field="pipeline",
            value=pipeline,
            way_out=f"Known pipelines: {', '.join(table)}.",
        )
    return table[pipeline]


def family_with(transformer: str) -> Family | None:
    """The family whose transformer is of that class."""
    return next((family for family in FAMILIES.values() if family.transformer == transformer), None)


_VACE = Family(
    pipeline="WanVACEPipeline",
    transformer="WanVACETransformer3DModel",
    vae=frozenset({"AutoencoderKLWan"}),
    text_encoders=frozenset({"UMT5EncoderModel"}),
    branches="separate",
    conditions=frozenset({"source", "control"}),
    block_lists=("vace_blocks", "blocks"),
    control_blocks="vace_blocks",
    gated_by_table=True,
    refused_caches={"fastercache": _APART, "first_block": _HINTS, "magcache": _HINTS, "seacache": _HINTS},
    vae_float32=True,
    decoding="causal",
    lora_targets=(*ATTENTION, "ffn.net.0.proj", "ffn.net.2"),
    decoder_lora=True,
)

_TABLE = (
    Family(
        pipeline="WanPipeline",
        transformer="WanTransformer3DModel",
        vae=frozenset({"AutoencoderKLWan"}),
        text_encoders=frozenset({"UMT5EncoderModel"}),
        branches="separate",
        block_lists=("blocks",),
        gated_by_table=True,
        refused_caches={"fastercache": _APART},
        vae_float32=True,
        decoding="causal",
        lora_targets=(*ATTENTION, "ffn.net.0.proj", "ffn.net.2"),
        decoder_lora=True,
    ),
    _VACE,
    replace(_VACE, pipeline="DrivingPipeline", library="studio.pipelines.driver"),
    Family(
        pipeline="LTXPipeline",
        transformer="LTXVideoTransformer3DModel",
        vae=frozenset({"AutoencoderKLLTXVideo"}),
        text_encoders=frozenset({"T5EncoderModel"}),
        branches="batched",
        block_lists=("transformer_blocks",),
        layout="tokens",
        gated_by_table=True,
        refused_caches={"fastercache": _TOKENS},
        decoding="tiles",
    ),
    Family(
        pipeline="CogVideoXPipeline",
        transformer="CogVideoXTransformer3DModel",
        vae=frozenset({"AutoencoderKLCogVideoX"}),
        text_encoders=frozenset({"T5EncoderModel"}),
        branches="batched",
        block_lists=("transformer_blocks",),
        layout="BFCHW",
        tokens="words first",
        noise="variance kept",
        decoding="causal",
    ),
    Family(
        pipeline="LattePipeline",
        transformer="LatteTransformer3DModel",
        vae=frozenset({"AutoencoderKL"}),
        text_encoders=frozenset({"T5EncoderModel"}),
        branches="batched",
        block_lists=("transformer_blocks", "temporal_transformer_blocks"),
        blocks_alternate=True,
        tokens="folded",
        noise="variance kept",
        gated_by_table=True,
        refused_caches={"first_block": _TURNS, "magcache": _TURNS, "seacache": _TURNS},
        decoding="whole",
        lora_loader="none",
    ),
    Family(
        pipeline="HunyuanVideoPipeline",
        transformer="HunyuanVideoTransformer3DModel",
        vae=frozenset({"AutoencoderKLHunyuanVideo"}),
        text_encoders=frozenset({"LlamaModel", "CLIPTextModel"}),
        # Guidance is distilled into the model: the scale is an input, and there is no second pass to negate with.
        branches="none",
        negative_prompt=False,
        block_lists=("transformer_blocks", "single_transformer_blocks"),
        decoding="tiles",
        lora_targets=(*JOINT_ATTENTION, *JOINT_FEED_FORWARD, "proj_mlp", "proj_out"),
    ),
    Family(
        pipeline="HunyuanVideo15Pipeline",
        transformer="HunyuanVideo15Transformer3DModel",
        vae=frozenset({"AutoencoderKLHunyuanVideo15"}),
        text_encoders=frozenset({"Qwen2_5_VLTextModel", "T5EncoderModel"}),
        components={"guider": frozenset({"ClassifierFreeGuidance"})},
        branches="separate",
        block_lists=("transformer_blocks",),
        block_outputs=(0, 1),
        refused_caches={"fastercache": _APART},
        decoding="whole",
        lora_targets=(*JOINT_ATTENTION, *JOINT_FEED_FORWARD),
        lora_loader="transformer",
    ),
    Family(
        pipeline="MochiPipeline",
        transformer="MochiTransformer3DModel",
        vae=frozenset({"AutoencoderKLMochi"}),
        text_encoders=frozenset({"T5EncoderModel"}),
        branches="batched",
        block_lists=("transformer_blocks",),
        decoding="whole",
        lora_targets=(*JOINT_ATTENTION, *JOINT_FEED_FORWARD),
    ),
    Family(
        pipeline="AllegroPipeline",
        transformer="AllegroTransformer3DModel",
        vae=frozenset({"AutoencoderKLAllegro"}),
        text_encoders=frozenset({"T5EncoderModel"}),
        branches="batched",
        block_lists=("transformer_blocks",),
        noise="signal kept",
        block_outputs=(0, None),
        gated_by_table=True,
        vae_float32=True,
        decoding="fixed tiles",
        decodes_in_tiles_only=True,
        lora_loader="none",
    ),
    Family(
        pipeline="SanaVideoPipeline",
        transformer="SanaVideoTransformer3DModel",
        vae=frozenset({"AutoencoderKLWan", "AutoencoderDC", "AutoencoderKLLTX2Video"}),
        text_encoders=frozenset({"Gemma2Model"}),
        branches="batched",
        block_lists=("transformer_blocks",),
        block_outputs=(0, None),
        gated_by_table=True,
        vae_float32=True,
        decoding="causal",
        # Its feed-forward layers are convolutions, which are left alone.
        lora_targets=ATTENTION,
        decoder_lora=True,
    ),
)

FAMILIES: Mapping[str, Family] = MappingProxyType({family.pipeline: family for family in _TABLE})
"""By pipeline class."""

_ONE_STEP = "it takes one step, and there is none before it whose work could be used again."

_SUPER_RESOLVERS = (
    SuperResolver(
        engine="kandinsky",
        pipeline="Kandinsky6SRPipeline",
        components={
            "transformer": frozenset({"Kandinsky6SRTransformer3DModel"}),
            "vae": frozenset({"Kandinsky6SRVAE"}),
            "latent_upscaler": frozenset({"Kandinsky6SRLatentUpscalerBank"}),
            "scheduler": frozenset({"FlowMatchEulerDiscreteScheduler", "PiflowScheduler"}),
        },
        optional=frozenset({"latent_upscaler"}),
        block_lists=("visual_transformer_blocks",),
        # The caches know of one run of steps after another; here each tile is one, within a single call.
        uncached="it takes two to four steps a tile, each far from the one before, and begins anew at every tile.",
    ),
    SuperResolver(
        engine="swiftvr",
        pipeline="SwiftVRPipeline",
        library="studio.pipelines.swiftvr",
        parts={
            "transformer": Part(path="transformer", library="diffusers", kind="WanTransformer3DModel"),
            "vae": Part(path="reae.safetensors", library="studio.pipelines.swiftvr", kind="ReAE"),
            "prompt": Part(path="prompt_embedding.safetensors", library="studio.pipelines.swiftvr", kind="EmptyPrompt"),
        },
        uncached=_ONE_STEP,
    ),
    SuperResolver(
        engine="dove",
        pipeline="CogVideoXPipeline",
        components={
            "transformer": frozenset({"CogVideoXTransformer3DModel"}),
            "vae": frozenset({"AutoencoderKLCogVideoX"}),
            "text_encoder": frozenset({"T5EncoderModel"}),
            "tokenizer": frozenset({"T5Tokenizer", "T5TokenizerFast"}),
            "scheduler": frozenset({"CogVideoXDDIMScheduler", "CogVideoXDPMScheduler"}),
        },
        uncached=_ONE_STEP,
    ),
    SuperResolver(
        engine="ltx",
        pipeline="LTX2LatentUpsamplePipeline",
        parts={
            "vae": Part(path="vae", library="diffusers", kind="AutoencoderKLLTX2Video"),
            "latent_upsampler": Part(
                path="latent_upsampler", library="diffusers.pipelines.ltx2", kind="LTX2LatentUpsamplerModel"
            ),
        },
        uncached="it takes no steps: its network enlarges the latents at once.",
    ),
)

SUPER_RESOLVERS: Mapping[str, SuperResolver] = MappingProxyType({row.pipeline: row for row in _SUPER_RESOLVERS})
"""Those that enlarge clips, by pipeline class."""
