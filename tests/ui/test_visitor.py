"""Who sees whose work."""

from __future__ import annotations

import pytest

from studio.errors import JobError
from studio.ui.server.visitor import introduced, is_hosted, known_id, owner_of


def test_at_home_everybody_is_local_whatever_the_browser_holds() -> None:
    for browser in (None, {}, {"owner": "x"}, "nonsense", introduced(None)):
        assert owner_of(browser, hosted=False) == "local"


def test_a_hosted_browser_gets_an_id_of_128_random_bits_and_keeps_it() -> None:
    first, other = introduced(None), introduced({})
    assert len(first["owner"]) == 32
    assert first["owner"] != other["owner"]
    assert introduced(first) == first
    assert owner_of(first, hosted=True) == first["owner"]


@pytest.mark.parametrize("owner", ["", "local", "A" * 32, "a" * 31, "a" * 33, "a" * 31 + "'", 7, None, ["a" * 32]])
def test_what_is_no_id_is_nobody(owner: object) -> None:
    assert known_id({"owner": owner}, "owner") == ""
    with pytest.raises(JobError, match="Reload the page"):
        owner_of({"owner": owner}, hosted=True)
    assert introduced({"owner": owner})["owner"] != owner


def test_a_space_and_the_switch_are_hosted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPACE_ID", raising=False)
    monkeypatch.delenv("DAILIES_HOSTED", raising=False)
    assert not is_hosted()
    monkeypatch.setenv("DAILIES_HOSTED", "1")
    assert is_hosted()
    monkeypatch.delenv("DAILIES_HOSTED")
    monkeypatch.setenv("SPACE_ID", "someone/dailies")
    assert is_hosted()
