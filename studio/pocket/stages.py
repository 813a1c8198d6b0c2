"""The stages of pocket training: files in, files out, with a recipe in between.

Knows the layout of the training folder. Refuses to know the command line.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from studio import distributed
from studio.pocket import autoencoder_recipe as recipe
from studio.pocket import denoiser_recipe as denoising
from studio.pocket import denoiser_twin
from studio.pocket import text_recipe as reading
from studio.pocket.amounts import Amounts
from studio.pocket.architecture import (
    FLOW_SHIFT,
    HEIGHT,
    MAX_SEQUENCE_LENGTH,
    NUM_FRAMES,
    POCKET,
    WIDTH,
    build_autoencoder,
    build_denoiser,
    build_text_encoder,
    latent_shape,
    with_vocabulary,
)
from studio.pocket.data import (
    STILLS_SEED,
    render_world,
    store_worlds,
    stored_covers,
    stored_frames,
    stored_worlds,
    wordings_of,
)
from studio.pocket.denoiser_recipe import LatentBank
from studio.pocket.loop import Plan, Trainee, train_steps, write_whole
from studio.pocket.probe import questions
from studio.pocket.sheet import write_sheet

Report = Callable[[Any], None]


WORLDS, STILLS = "worlds", "stills"
"""Folders of rendered clips, and of single frames."""


def worlds(folder: Path, amounts: Amounts, report: Report) -> None:
    store_worlds(folder / WORLDS, clips=amounts.worlds)
    report(f"{amounts.worlds} worlds in {folder / WORLDS}")
    store_worlds(folder / STILLS, clips=amounts.stills, first_seed=STILLS_SEED, num_frames=1)
    report(f"{amounts.stills} stills in {folder / STILLS}")


def tokenizer(folder: Path, report: Report) -> None:
    from studio.pocket.tokenizer import train_tokenizer

    captions = [words for world in stored_worlds(folder / WORLDS)[:3000] for words in world["wordings"]]
    learnt = train_tokenizer(captions, vocabulary=POCKET.vocabulary)
    learnt.save_pretrained(folder / "tokenizer")
    report(f"tokenizer of {len(learnt)} tokens in {folder / 'tokenizer'}")


@dataclass(frozen=True, kw_only=True)
class Length:
    """How long a training stage goes on."""

    steps: int
    """Of the whole stage."""
    seconds: float | None = None
    """Of the whole stage, where that ends first."""
    stop_after_seconds: float | None = None
    """Of this call; the next goes on from there."""


def text_encoder(folder: Path, length: Length, device: str | None, report: Report) -> None:
    """The text encoder alone learns to read; the denoiser's stages go on with it."""
    torch.manual_seed(0)
    tokens, known = load_tokenizer(folder), stored_worlds(folder / WORLDS)
    encoder = build_text_encoder(with_vocabulary(POCKET, len(tokens)))
    denoising.initialise_text_encoder(encoder, torch.Generator().manual_seed(0))
    asked = questions()
    reader = reading.Reader(encoder, {name: len(answers) for name, answers in asked.items()})
    reader.to(pick_device(device))
    ids = padded_ids(tokens, [words for world in known for words in world["wordings"]]).unflatten(0, (len(known), -1))
    labels = {
        name: torch.tensor([answers.index(world["attributes"][name]) for world in known])
        for name, answers in asked.items()
    }
    held_out = len(known) // 10
    plan = Plan(steps=length.steps, seconds=length.seconds, muon_lr=0.01, adam_lr=1e-3, seed=3)
    trainee = Trainee.of(reader, plan, denoising.is_muon_matrix)
    loss_of = reading.objective_of(reader, ids[held_out:], {name: a[held_out:] for name, a in labels.items()})

    def watch(trainee: Trainee) -> str:
        found = reading.accuracy(reader, ids[:held_out, 0], {name: a[:held_out] for name, a in labels.items()})
        return ", ".join(f"{name} {share:.1%}" for name, share in found.items())

    _go_through(trainee, plan, loss_of, "text-encoder", folder, length, watch, report)
    if distributed.join()[0] == 0:
        write_whole(folder / "text_encoder.pt", encoder.state_dict())


def _go_through(
    trainee: Trainee,
    plan: Plan,
    loss_of: Callable[[int, torch.Generator], Tensor],
    stage: str,
    folder: Path,
    length: Length,
    watch: Callable[[Trainee], str],
    report: Report,
    *,
    watch_every_seconds: float = 240.0,
) -> None:
    """Train as far as this call goes; at its end the first process's module holds the averaged weights."""
    for event in train_steps(
        trainee,
        plan,
        loss_of,
        stage=stage,
        state_path=folder / f"{stage}.pt",
        stop_after_seconds=length.stop_after_seconds,
        watch=watch,
        watch_every_seconds=watch_every_seconds,
    ):
        report(event)
    if distributed.join()[0] == 0:
        trainee.load_average()


def autoencoder(stage: str, folder: Path, amounts: Amounts, length: Length, device: str | None, report: Report) -> None:
    """One of autoencoder-frames, -clips, -decoder. Each begins from what the one before it left."""
    torch.manual_seed(0)
    vae = build_autoencoder(POCKET)
    state = folder / f"{stage}.pt"
    planned = partial(Plan, steps=length.steps, seconds=length.seconds)
    objective = recipe.AutoencoderObjective()
    if stage == "autoencoder-frames":
        recipe.initialise(vae, torch.Generator().manual_seed(0))
        plan = planned(muon_lr=0.02, adam_lr=2e-3, falling_share=0.3)
    elif stage == "autoencoder-clips":
        if not state.is_file():
            load_autoencoder(vae, folder / "autoencoder.pt")
            recipe.open_past_taps(vae)
        plan = planned(muon_lr=0.01, adam_lr=1e-3, seed=1)
        objective = recipe.AutoencoderObjective(square=amounts.clip_square, latent_noise=amounts.clip_noise)
    else:
        if not state.is_file():
            load_autoencoder(vae, folder / "autoencoder.pt")
        for module in (vae.encoder, vae.quant_conv):
            module.requires_grad_(False)
        plan = planned(muon_lr=0.01, adam_lr=1e-3, seed=2)
        objective = recipe.AutoencoderObjective(square=4.0, latent_noise=0.05)
    where = pick_device(device)
    vae.to(where)  # pyright: ignore[reportArgumentType]  # diffusers wraps it untyped
    vae.quant_conv.requires_grad_(False)
    frames = stored_frames(folder / WORLDS)
    trainee = Trainee.of(vae, plan, recipe.is_muon_matrix)
    last = stage == "autoencoder-decoder"
    on_card = frames if where.type == "cpu" else frames.to(where)
    clip_crops = partial(amounts.crops_at, steps=length.steps)
    crops_at = clip_crops if stage != "autoencoder-frames" else lambda step: amounts.frame_crops
    loss_of = recipe.objective_of(vae, on_card, crops_at, objective, decoder_only=last)
    watch = AutoencoderWatch(
        folder / "sheets", stage, length=1 if stage == "autoencoder-frames" else NUM_FRAMES, worlds=amounts.watched
    )
    _go_through(trainee, plan, loss_of, stage, folder, length, watch, report)
    if distributed.join()[0] == 0:
        write_whole(folder / "autoencoder.pt", vae.state_dict())


class AutoencoderWatch:
    """PSNR on held-out worlds, and a sheet of them above their reconstructions."""

    def __init__(self, sheets: Path, stage: str, length: int, worlds: int) -> None:
        self.path = sheets / f"{stage}.png"
        self.pixels = np.stack([render_world(seed, num_frames=length).frames for seed in range(worlds)])

    def __call__(self, trainee: Trainee) -> str:
        kept = {name: p.detach().clone() for name, p in trainee.module.named_parameters()}
        trainee.load_average()
        again = recipe.reconstruct(trainee.module, self.pixels)
        trainee.module.load_state_dict(kept, strict=False)
        rows = [np.concatenate([a, b], axis=1) for a, b in zip(self.pixels[:6], again[:6], strict=True)]
        if self.pixels.shape[1] == 1:
            rows = [np.concatenate(rows, axis=0)]
        write_sheet(self.path, rows)
        each = [recipe.psnr(a, b) for a, b in zip(self.pixels, again, strict=True)]
        return f"held-out PSNR {recipe.psnr(self.pixels, again):.2f} dB (mean over clips {np.mean(each):.2f})"


def encode(folder: Path, device: str | None, report: Report, *, share: tuple[int, int] = (0, 1)) -> None:
    """Latents of every stored world, of three frames of each alone, and of the stills.

    `share` is (which, of how many), so that several processes can divide the work.
    """
    vae = build_autoencoder(POCKET)
    load_autoencoder(vae, folder / "autoencoder.pt")
    vae.to(pick_device(device)).eval()  # pyright: ignore[reportArgumentType]
    (folder / "latents").mkdir(exist_ok=True)
    encode_stills(vae, folder, report, share)
    encode_clips(vae, folder, report, share)


STILLS_AT_ONCE, CLIPS_AT_ONCE = 128, 8
"""Encoded in one call."""


def encode_stills(vae: Any, folder: Path, report: Report, share: tuple[int, int]) -> None:
    frames, known = stored_frames(folder / STILLS), stored_worlds(folder / STILLS)
    rows = torch.arange(share[0], len(frames), share[1])
    latents = []
    for some in rows.split(STILLS_AT_ONCE):
        latents.append(recipe.latent_of(vae, frames[some].numpy()).half())
        report(f"encode stills {sum(map(len, latents))}/{len(rows)}")
    # Covers (N, F, 2, h, w) become (N, 2, F, h, w), as latents are.
    covers = stored_covers(folder / STILLS)[rows].transpose(1, 2)
    _write_latents(folder, "stills", share, torch.cat(latents), covers, [known[row]["wordings"] for row in rows])


def encode_clips(vae: Any, folder: Path, report: Report, share: tuple[int, int]) -> None:
    frames, known = stored_frames(folder / WORLDS), stored_worlds(folder / WORLDS)
    rows = torch.arange(share[0], len(frames), share[1])
    # Three frames of each clip alone, others in other clips.
    chosen = (rows[:, None] * 5 + torch.tensor([0, 6, 12])) % frames.shape[1]
    clips, alone = [], []
    for some, frames_of_each in zip(rows.split(CLIPS_AT_ONCE), chosen.split(CLIPS_AT_ONCE), strict=True):
        pixels = frames[some]
        clips.append(recipe.latent_of(vae, pixels.numpy()).half())
        stills = pixels[torch.arange(len(some))[:, None], frames_of_each].flatten(0, 1)
        alone.append(recipe.latent_of(vae, stills[:, None].numpy()).half())
        if len(clips) % 32 == 0:
            report(f"encode clips {sum(map(len, clips))}/{len(rows)}")
    covers = stored_covers(folder / WORLDS)[rows]
    covers_alone = covers[torch.arange(len(rows))[:, None], chosen].flatten(0, 1)[:, :, None]
    # The first latent frame is the first frame; each later one stands for four.
    by_latent = torch.cat([covers[:, :1], covers[:, 1:].unflatten(1, (-1, 4)).float().mean(dim=2).half()], dim=1)
    wordings = [known[row]["wordings"] for row in rows]
    _write_latents(folder, "clips", share, torch.cat(clips), by_latent.transpose(1, 2), wordings)
    of_each = [words for words in wordings for _ in range(3)]
    _write_latents(folder, "stills-of-clips", share, torch.cat(alone), covers_alone, of_each)


def _write_latents(
    folder: Path, kind: str, share: tuple[int, int], latents: Tensor, covers: Tensor, wordings: Sequence[Sequence[str]]
) -> None:
    stem = folder / "latents" / f"{kind}-{share[0]}-of-{share[1]}"
    stem.with_suffix(".json").write_text(json.dumps([list(words) for words in wordings]))
    write_whole(stem.with_suffix(".pt"), {"latents": latents, "covers": covers.contiguous()})


def latent_statistics(folder: Path) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (Z,) over clips' latents; measured once, as the denoiser depends on them."""
    path = folder / "latents" / "statistics.pt"
    if not path.is_file():
        vae = build_autoencoder(POCKET)
        load_autoencoder(vae, folder / "autoencoder.pt")
        frames = stored_frames(folder / WORLDS)
        rows = range(0, len(frames), max(1, len(frames) // 100))
        latents = torch.cat([recipe.latent_of(vae, frames[row][None].numpy()) for row in rows])
        write_whole(path, torch.stack([latents.mean(dim=(0, 2, 3, 4)), latents.std(dim=(0, 2, 3, 4))]))
    mean, std = torch.load(path, weights_only=True)
    return mean, std


def read_bank(folder: Path, tokens: Any, kinds: Sequence[str]) -> LatentBank | None:
    """The normalised latents of these kinds with their captions as token ids; None if there are none."""
    mean, std = (part.view(1, -1, 1, 1, 1) for part in latent_statistics(folder))
    paths = [path for kind in kinds for path in sorted((folder / "latents").glob(f"{kind}-[0-9]-of-*.pt"))]
    if not paths:
        return None
    stored = [torch.load(path, weights_only=True) for path in paths]
    latents = [((part["latents"].float() - mean) / std).half() for part in stored]
    wordings = [words for path in paths for words in json.loads(path.with_suffix(".json").read_text())]
    flat = padded_ids(tokens, [caption for words in wordings for caption in words])
    return LatentBank(
        latents=torch.cat(latents),
        covers=torch.cat([part["covers"] for part in stored]),
        token_ids=flat.unflatten(0, (len(wordings), -1)),
        empty=padded_ids(tokens, [""])[0],
    )


def padded_ids(tokens: Any, captions: list[str]) -> Tensor:
    """(V, L) ids, zeros after each caption's end."""
    found = tokens(captions, padding="max_length", max_length=MAX_SEQUENCE_LENGTH, truncation=True, return_tensors="pt")
    return found["input_ids"]


def denoiser(stage: str, folder: Path, amounts: Amounts, length: Length, device: str | None, report: Report) -> None:
    """denoiser-frames or denoiser-clips; the second begins from what the first left."""
    torch.manual_seed(0)
    where = pick_device(device)
    planned = partial(Plan, steps=length.steps, seconds=length.seconds)
    tokens = load_tokenizer(folder)
    sizes = with_vocabulary(POCKET, len(tokens))
    model = denoising.TextToLatent(build_text_encoder(sizes), build_denoiser(sizes))
    stills = read_bank(folder, tokens, ("stills", "stills-of-clips"))
    clips = read_bank(folder, tokens, ("clips",))
    assert stills is not None, f"no latents in {folder}; run the stage encode first"
    stills, clips = stills.to(where), None if clips is None else clips.to(where)
    state = folder / f"{stage}.pt"
    if stage == "denoiser-frames":
        denoising.initialise(model, torch.Generator().manual_seed(0))
        model.text_encoder.load_state_dict(torch.load(folder / "text_encoder.pt", weights_only=True))
        plan = planned(muon_lr=0.02, adam_lr=2e-3, falling_share=0.2, warmup_steps=100)
    else:
        if not state.is_file():
            model.load_state_dict(torch.load(folder / "denoiser.pt", weights_only=True))
        plan = planned(muon_lr=0.015, adam_lr=1e-3, falling_share=0.5, seed=1)
    model.to(where)

    def choose(step: int) -> denoising.Draw:
        if stage == "denoiser-frames" or clips is None or step % amounts.stills_every == 0:
            return denoising.Draw(bank=stills, batch=amounts.stills_batch)
        return denoising.Draw(bank=clips, batch=amounts.clips_batch)

    if amounts.compiled:
        model.compile_blocks()
    trainee = Trainee.of(model, plan, denoising.is_muon_matrix)
    loss_of = denoising.objective_of(model, choose, denoising.DenoiserObjective())
    looked_at = 1 if stage == "denoiser-frames" else NUM_FRAMES
    watch = DenoiserWatch(folder, stage, tokens, length=looked_at, worlds=amounts.watched)
    _go_through(trainee, plan, loss_of, stage, folder, length, watch, report, watch_every_seconds=480.0)
    if distributed.join()[0] == 0:
        write_whole(folder / "denoiser.pt", model.state_dict())


class DenoiserWatch:
    """A sheet of what the averaged weights make of held-out prompts, each under the render of its world."""

    def __init__(self, folder: Path, stage: str, tokens: Any, *, length: int, worlds: int) -> None:
        self.folder, self.stage, self.length = folder, stage, length
        renders = [render_world(seed, num_frames=length) for seed in range(worlds)]
        self.renders = [world.frames for world in renders]
        self.token_ids = padded_ids(tokens, [world.caption for world in renders])
        self.empty = padded_ids(tokens, [""])[0]

    def __call__(self, trainee: Trainee) -> str:
        model = trainee.module
        assert isinstance(model, denoising.TextToLatent)
        compiled = model.run_block
        kept = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        trainee.load_average()
        model.run_block = denoiser_twin.run_block  # other shapes than in training would be compiled anew
        shape = latent_shape(POCKET, num_frames=self.length, height=HEIGHT, width=WIDTH)
        latents = denoising.sample(model, self.token_ids, self.empty, shape, torch.Generator().manual_seed(0))
        model.run_block = compiled
        model.load_state_dict(kept, strict=False)
        vae = build_autoencoder(POCKET)
        load_autoencoder(vae, self.folder / "autoencoder.pt")
        mean, std = (part.view(1, -1, 1, 1, 1) for part in latent_statistics(self.folder))
        clips = recipe.decode_latent(vae, latents * std + mean)
        rows = [np.concatenate([a, b], axis=1) for a, b in zip(self.renders, clips, strict=True)]
        if self.length == 1:
            rows = [np.concatenate(rows, axis=0)]
        path = write_sheet(self.folder / "sheets" / f"{self.stage}.png", rows)
        return f"sheet in {path}"


def load_tokenizer(folder: Path) -> Any:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer")


def export(folder: Path, destination: Path, report: Report) -> None:
    """The averaged weights as a checkpoint that diffusers reads, in half precision."""
    from studio.pocket.export import save_pipeline, weight_megabytes

    tokens = load_tokenizer(folder)
    sizes = with_vocabulary(POCKET, len(tokens))
    vae, text_encoder, transformer = build_autoencoder(sizes), build_text_encoder(sizes), build_denoiser(sizes)
    load_autoencoder(vae, folder / "autoencoder.pt")
    mean, std = latent_statistics(folder)
    vae.register_to_config(latents_mean=mean.tolist(), latents_std=std.tolist())
    both = denoising.TextToLatent(text_encoder, transformer)
    both.load_state_dict(torch.load(folder / "denoiser.pt", weights_only=True))
    captions = [wordings_of(seed)[0] for seed in range(8)]
    save_pipeline(
        destination,
        tokenizer=tokens,
        text_encoder=text_encoder,
        vae=vae,
        transformer=transformer,
        captions=captions,
        flow_shift=FLOW_SHIFT,
        dtype=torch.float16,
    )
    report(f"{weight_megabytes(destination):.1f} MB of weights in {destination}")


def load_autoencoder(vae: torch.nn.Module, path: Path) -> None:
    vae.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))


def pick_device(device: str | None) -> torch.device:
    return torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))


def quicken(device: str | None) -> None:
    """On a card: let cuDNN choose its convolutions by trying, and multiply single-precision matrices in TF32."""
    if pick_device(device).type == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")
