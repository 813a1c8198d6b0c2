"""The pocket harmoniser: what it may change, what it sees, and that pictures follow one another."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from studio.pipelines.harmoniser import Harmoniser, given_of, harmonised, surroundings_of, zone_of


def loud() -> Harmoniser:
    """One whose last convolutions say something."""
    torch.manual_seed(0)
    network = Harmoniser(channels=8, latent_channels=4, denoiser_channels=8, num_denoiser_blocks=4)
    parts = [network.denoiser.tail, network.decoder.tail, network.denoiser.tuning, network.decoder.tuning]
    for part in parts:
        for parameter in part.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    return network.eval().requires_grad_(False)


def pasted(num_frames: int = 6, height: int = 48, width: int = 64) -> dict[str, np.ndarray]:
    """A grey block that moves over noise."""
    rng = np.random.default_rng(0)
    source = rng.integers(0, 256, (num_frames, height, width, 3), np.uint8)
    alpha = np.zeros((num_frames, height, width), np.float32)
    for number in range(num_frames):
        alpha[number, 12:28, 20 + number : 44 + number] = 1
    alpha = np.stack([cv2.GaussianBlur(each, (3, 3), 0) for each in alpha])
    paste = np.rint(source + alpha[..., None] * (128.0 - source)).astype(np.uint8)
    return {
        "source": source,
        "paste": paste,
        "alpha": alpha,
        "zone": np.stack([zone_of(each) for each in alpha]),
        "around": np.stack([surroundings_of(each, 32) for each in source]),
    }


def test_outside_the_zone_the_source_stays_bit_for_bit() -> None:
    clip = pasted()
    made, _ = harmonised(loud(), **clip)
    outside = clip["zone"] == 0
    assert 0.2 < outside.mean() < 0.9
    assert np.array_equal(made[outside], clip["source"][outside])
    assert (made != clip["paste"])[~outside].mean() > 0.5


def test_an_untrained_one_gives_the_paste_back() -> None:
    clip = pasted()
    made, _ = harmonised(Harmoniser(channels=8, denoiser_channels=8), **clip)
    assert np.array_equal(made, clip["paste"])


def test_at_strength_0_the_paste_is_what_comes_out_and_halfway_lies_between() -> None:
    clip = pasted()
    assert np.array_equal(harmonised(loud(), **clip, strength=0.0)[0], clip["paste"])
    whole, half = (harmonised(loud(), **clip, strength=each)[0].astype(float) for each in (1.0, 0.5))
    inside = (whole > 0) & (whole < 255)
    assert np.abs(half - (whole + clip["paste"]) / 2)[inside].max() <= 1


def test_pictures_one_by_one_are_the_clip_as_a_whole() -> None:
    clip = pasted()
    whole, _ = harmonised(loud(), **clip)
    state, each = None, []
    for number in range(len(whole)):
        part = {name: array[number : number + 1] for name, array in clip.items()}
        made, state = harmonised(loud(), **part, state=state)
        each.append(made)
    assert np.abs(np.concatenate(each).astype(int) - whole).max() <= 1
    forgetful = np.concatenate(
        [harmonised(loud(), **{name: array[n : n + 1] for name, array in clip.items()})[0] for n in range(len(whole))]
    )
    assert np.abs(forgetful.astype(int) - whole).max() > 1  # it does remember


def test_what_is_far_away_tells_it_how_to_light() -> None:
    clip = pasted()
    by_day, _ = harmonised(loud(), **clip)
    by_night, _ = harmonised(loud(), **{**clip, "around": clip["around"] // 8})
    assert not np.array_equal(by_day, by_night)


def test_gradients_reach_every_weight() -> None:
    network = loud().requires_grad_(True)
    given = given_of(*(torch.rand(1, 2, channels, 16, 24) for channels in (3, 3, 1, 1)))
    network(given, torch.rand(1, 2, 3, 32, 32))[0].square().mean().backward()
    lost = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not lost


def test_a_zone_covers_the_paste_and_reaches_farthest_towards_the_ground() -> None:
    alpha = np.zeros((200, 200), np.float32)
    alpha[80:120, 70:130] = 1
    zone = zone_of(alpha)
    assert (zone[alpha > 0] == 1).all()
    rows, columns = np.nonzero(zone)
    above, below = 80 - rows.min(), rows.max() - 119
    left, right = 70 - columns.min(), columns.max() - 129
    assert left == right
    assert 0 < above < left < below
    assert (np.diff(zone[119 : rows.max() + 1, 100]) <= 0).all()  # softer and softer


def test_a_zone_is_as_large_as_the_vehicle_is_and_none_without_one() -> None:
    alpha = np.zeros((300, 300), np.float32)
    assert not zone_of(alpha).any()
    alpha[100:120, 100:120] = 1
    small = zone_of(alpha)
    alpha[80:140, 80:140] = 1
    large = zone_of(alpha)
    assert np.nonzero(large)[0].max() - 139 == pytest.approx(3 * (np.nonzero(small)[0].max() - 119), abs=2)


def test_a_zone_at_the_pictures_edge_is_not_soft_there() -> None:
    alpha = np.zeros((60, 60), np.float32)
    alpha[40:, 20:40] = 1
    assert (zone_of(alpha)[-1, 20:40] == 1).all()


def test_it_is_saved_and_read_back(tmp_path: Path) -> None:
    loud().save_pretrained(tmp_path)
    clip = pasted()
    again = Harmoniser.from_pretrained(tmp_path).eval()
    assert np.array_equal(harmonised(again, **clip)[0], harmonised(loud(), **clip)[0])
