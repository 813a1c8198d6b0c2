"""What happens to a clip before somebody wishes it were larger: optics, sensors, scalers and codecs, in random order.

Two rounds, as Real-ESRGAN (Wang et al., arXiv 2107.10833) has them for pictures and RealBasicVSR (Chan et al., CVPR
2022) for clips, milder than theirs: each draws blur, noise and another size once for the whole clip, and H.264 comes
before or after the last size. The noise itself is new in every picture.

Shapes: T pictures, H rows, W columns, uint8 RGB; s the scale.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial

import cv2
import numpy as np

from studio.clips.shrinking import in_8_bits

_SCALERS = (cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_CUBIC)
Step = Callable[[np.ndarray], np.ndarray]


def degraded(clip: np.ndarray, scale: int, rng: np.random.Generator) -> np.ndarray:
    """(T, H, W, 3) to (T, H/s, W/s, 3), the same way for the same generator."""
    height, width = clip.shape[1] // scale, clip.shape[2] // scale
    pictures = clip.astype(np.float32)
    for step in _shuffled(rng, [_blur(rng, 1.2), _noise(rng, 8.0), _other_size(rng, height, width, scale)]):
        pictures = step(pictures)
    if rng.random() < 0.5:
        pictures = _blur(rng, 0.6)(pictures)
    pictures = _noise(rng, 4.0)(pictures)
    last: list[Step] = [partial(_resized, size=(height, width), how=int(rng.choice(_SCALERS)))]
    if rng.random() < 0.8:
        last.append(_codec(rng))
    for step in _shuffled(rng, last):
        pictures = step(pictures)
    return in_8_bits(pictures)


def _shuffled(rng: np.random.Generator, steps: list[Step]) -> list[Step]:
    return [steps[place] for place in rng.permutation(len(steps))]


def _blur(rng: np.random.Generator, most: float) -> Step:
    """A Gaussian of up to so many pixels, turned and longer one way in a third of cases."""
    long, short = rng.uniform(0.2, most, 2)
    if rng.random() < 0.65:
        short = long
    kernel = _gaussian(long, short, rng.uniform(0, np.pi))
    return lambda pictures: np.stack([cv2.filter2D(each, -1, kernel) for each in pictures])


def _gaussian(long: float, short: float, turned: float) -> np.ndarray:
    reach = int(np.ceil(3 * max(long, short)))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float32)
    along, across = x * np.cos(turned) + y * np.sin(turned), y * np.cos(turned) - x * np.sin(turned)
    kernel = np.exp(-0.5 * ((along / long) ** 2 + (across / short) ** 2))
    return (kernel / kernel.sum()).astype(np.float32)


def _noise(rng: np.random.Generator, most: float) -> Step:
    """Of up to so many levels: the same everywhere, or growing with the light; in all colours alike or in each."""
    deviation, grey, of_light = rng.uniform(0, most), rng.random() < 0.4, rng.random() < 0.5
    seed = int(rng.integers(2**32))

    def add(pictures: np.ndarray) -> np.ndarray:
        shape = (*pictures.shape[:3], 1 if grey else 3)
        drawn = np.random.default_rng(seed).standard_normal(shape, np.float32) * np.float32(deviation)
        return pictures + (drawn * np.sqrt(np.maximum(pictures, 0) / 128) if of_light else drawn)

    return add


def _other_size(rng: np.random.Generator, height: int, width: int, scale: int) -> Step:
    """Somewhere between the small size and the large one."""
    times = rng.uniform(1.0, scale)
    return partial(_resized, size=(round(height * times), round(width * times)), how=int(rng.choice(_SCALERS)))


def _resized(pictures: np.ndarray, *, size: tuple[int, int], how: int) -> np.ndarray:
    smaller = size[0] < pictures.shape[1]
    how = cv2.INTER_AREA if smaller and how == cv2.INTER_LINEAR else how  # which would leave pixels out
    return np.stack([cv2.resize(each, size[::-1], interpolation=how) for each in pictures])


def _codec(rng: np.random.Generator) -> Step:
    return partial(encoded, crf=int(rng.integers(16, 31)))


def encoded(pictures: np.ndarray, crf: int) -> np.ndarray:
    """What H.264 of that quality makes of a clip, as float32. Sizes that are odd lose their last row or column to it
    and get it back."""
    import av

    even = in_8_bits(pictures)[:, : pictures.shape[1] // 2 * 2, : pictures.shape[2] // 2 * 2]
    file = io.BytesIO()
    with av.open(file, "w", format="nut") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": str(crf), "preset": "veryfast"})
        stream.height, stream.width, stream.pix_fmt = even.shape[1], even.shape[2], "yuv420p"
        stream.codec_context.thread_count = 1
        for each in even:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(each), format="rgb24")))
        container.mux(stream.encode(None))
    file.seek(0)
    with av.open(file, "r") as made:
        read = np.stack([frame.to_ndarray(format="rgb24") for frame in made.decode(video=0)])
    below, beside = pictures.shape[1] - read.shape[1], pictures.shape[2] - read.shape[2]
    return np.pad(read, ((0, 0), (0, below), (0, beside), (0, 0)), mode="edge").astype(np.float32)
