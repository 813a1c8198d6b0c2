"""The harmoniser that ships: small, checked, and of use in worlds that it has not seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from studio.driving_world import sample_scene
from studio.pipelines.harmoniser import harmonised, load_harmoniser
from studio.pocket.harmoniser.data import MEASURED, pair_of

SHIPPED = Path(__file__).parents[2] / "assets/pocket/harmoniser"


def test_it_is_small() -> None:
    network = load_harmoniser(SHIPPED)
    assert sum(parameter.numel() for parameter in network.parameters()) <= 1_000_000
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < 3_000_000


@pytest.mark.parametrize("condition", MEASURED)
def test_a_vehicle_in_an_unseen_world_comes_nearer_to_the_truth_and_so_does_what_lies_around_it(condition: str) -> None:
    hour, weather = MEASURED[condition]
    errors = np.zeros((2, 2))
    for seed in (700, 705):
        scenes = [sample_scene(seed, time_of_day=h, weather=w) for h, w in ((hour, weather), ("day", "clear"))]
        pair = pair_of((scenes[0], scenes[1]), 1, height=160, width=160, num_frames=4)
        alpha, zone = (plane.astype(np.float32) / 255 for plane in (pair.cover, pair.zone))
        share = alpha[..., None]
        paste = np.rint(pair.source * (1 - share) + pair.vehicle * share).astype(np.uint8)
        made, _ = harmonised(load_harmoniser(SHIPPED), pair.source, paste, alpha, zone, pair.around)
        on = alpha > 0.5
        for place, mask in enumerate((on, (zone > 0) & ~on)):
            for way, clip in enumerate((paste, made)):
                errors[place, way] += np.square(clip[mask].astype(float) - pair.wanted[mask]).mean()
    gains = 10 * np.log10(errors[:, 0] / errors[:, 1])
    assert gains[0] > 1.5, gains
    assert gains[1] > 0.5, gains
