"""Pictures with enough to see at every scale, for metrics that follow what moves."""

import cv2
import numpy as np


def texture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """uint8, (H, W, 3): smooth noise of several grain sizes, using all levels."""
    rng = np.random.default_rng(seed)
    grains = [
        cv2.resize(rng.random((height // size, width // size, 3)), (width, height), interpolation=cv2.INTER_CUBIC)
        * size**0.5
        for size in (2, 4, 8, 16)
    ]
    mixed = np.sum(grains, axis=0)
    return (255 * (mixed - mixed.min()) / (mixed.max() - mixed.min())).astype(np.uint8)


def noisy(clip: np.ndarray, sigma: float) -> np.ndarray:
    """The clip under Gaussian noise of so many levels, the same noise scaled for every sigma."""
    noise = np.random.default_rng(7).normal(0, sigma, clip.shape)
    return np.clip(clip + noise, 0, 255).round().astype(np.uint8)


def panned(step_x: int, step_y: int, num_frames: int = 5, side: int = 64) -> np.ndarray:
    """uint8, (F, side, side, 3): a window that moves over one texture, so that all of it moves by (-x, -y) a frame."""
    ground = texture(side + 96, side + 96)
    corners = [(40 + step_x * frame, 40 + step_y * frame) for frame in range(num_frames)]
    return np.stack([ground[y : y + side, x : x + side] for x, y in corners])
