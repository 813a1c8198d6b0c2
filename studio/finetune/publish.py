"""A version goes to the Hub: its weights in diffusers' format and its model card.

Knows huggingface_hub. Refuses to know pages and where a token came from. Nothing else of a version leaves the machine:
neither clips nor logs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from studio.errors import DownloadError, RequestError
from studio.records.versions import DECODER_FILE, LORA_2_FILE, LORA_FILE, Version, VersionStore

SENT = (LORA_FILE, LORA_2_FILE, DECODER_FILE, "README.md")


def publish(
    version_id: str,
    repo: str,
    *,
    versions: VersionStore,
    token: str | None = None,
    private: bool = True,
    endpoint: str | None = None,
) -> str:
    """Send a version to a repository, which is made where there is none.

    Args:
        version_id: Which; it must be complete, for only then has it a card.
        repo: `name` or `owner/name`.
        versions: Where it lies.
        token: One that may write; None takes what `hf auth login` left, or `$HF_TOKEN`.
        private: Whether a new repository is seen by its owner only.
        endpoint: Another Hub than the usual one.

    Returns:
        The repository's address.

    Raises:
        VersionError: no such version.
        RequestError: it is not complete, or the name will not do.
        DownloadError: the Hub refused or cannot be reached.
    """
    from huggingface_hub import HfApi, get_token

    version = versions.get(version_id)
    _refuse_unfinished(version, repo)
    if token is None and get_token() is None:
        raise _not_sent(
            repo, "there is no token on this machine.", "Log in with `hf auth login`, or set HF_TOKEN, and push again."
        )
    with _hub_trouble(repo):
        api: Any = HfApi(token=token, endpoint=endpoint)
        made = api.create_repo(repo, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=made.repo_id,
            folder_path=versions.path(version_id),
            allow_patterns=list(SENT),
            commit_message=f"{version.title}, fine-tuned with Dailies",
        )
    return str(made)


def _refuse_unfinished(version: Version, repo: str) -> None:
    """Raises RequestError for a version without a card, and for a name that no repository can have."""
    from huggingface_hub import errors
    from huggingface_hub.utils import validate_repo_id

    if version.state != "complete":
        raise RequestError(
            f"Version {version.id} is not complete.", field="version", value=version.id, way_out="Let it train on."
        )
    try:
        validate_repo_id(repo)
    except errors.HFValidationError as error:
        raise RequestError(
            f"{repo[:100]!r} is no repository's name.", field="repo", value=repo, way_out="Write owner/name."
        ) from error


@contextmanager
def _hub_trouble(repo: str) -> Iterator[None]:
    """The Hub's refusals, and its absence, in the studio's words."""
    from huggingface_hub import errors

    try:
        yield
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        if status in (401, 403):
            raise _not_sent(repo, f"the token may not write there ({status}).", "Use one with write access.") from error
        raise _not_sent(repo, f"the Hub answered {status}.", "Try again later.") from error
    except Exception as error:  # its transport has errors of its own kind, which are no OSError
        raise _not_sent(repo, "the Hub cannot be reached.", "Check the network, and HF_HUB_OFFLINE.") from error


def _not_sent(repo: str, why: str, way_out: str) -> DownloadError:
    return DownloadError(f"{repo} was not sent: {why}", field="repo", value=repo, way_out=way_out)
