"""A version is sent to the Hub: the real client against a Hub on the loopback."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.loopback_hub import TakingHub, taking
from support.small_training import asked

from studio.errors import DownloadError, RequestError
from studio.finetune import finetune
from studio.finetune.publish import publish
from studio.records.runs import RunStore
from studio.records.versions import LORA_FILE, VersionStore
from studio.requests.training import TrainingClip


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[TakingHub]:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with taking() as hub:
        yield hub


def test_weights_and_card_are_sent_and_nothing_else(
    clips: tuple[TrainingClip, ...], store: RunStore, hub: TakingHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    version_id = list(finetune(asked(clips, objective="latent", max_train_steps=1), store=store))[-1].version_id
    versions = VersionStore(store.folder)
    send = {"versions": versions, "token": "hf_something", "endpoint": hub.endpoint}
    assert "someone/squares" in publish(version_id, "squares", **send)
    assert hub.made[0]["visibility"] == "private"
    assert set(hub.files) - {".gitattributes"} == {LORA_FILE, "README.md"}
    assert hub.files[LORA_FILE] == (versions.path(version_id) / LORA_FILE).read_bytes()
    assert hub.files["README.md"].startswith(b"---\nlibrary_name: diffusers")

    hub.refusal = 403
    with pytest.raises(DownloadError, match="may not write") as refused:
        publish(version_id, "squares", **send)
    assert "write access" in refused.value.way_out
    with pytest.raises(RequestError, match="no repository's name"):
        publish(version_id, "not a name!", **send)
    with pytest.raises(DownloadError, match="cannot be reached"):
        publish(version_id, "squares", **send | {"endpoint": "http://127.0.0.1:9"})

    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(DownloadError, match="no token on this machine") as refused:
        publish(version_id, "squares", **send | {"token": None})
    assert "hf auth login" in refused.value.way_out
