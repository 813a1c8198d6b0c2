"""Fidelity: how near a clip stays to a reference clip of the same shape.

Knows pixels, and the libraries that keep the published measures: scikit-image for SSIM, torchmetrics for MS-SSIM and
LPIPS. They are imported where they are used, so that naming a metric costs nothing. Refuses to know which of the two
clips is the better one, to resize either, and to download weights.

Shapes: F frames, H rows, W columns; clips are uint8, (F, H, W, 3), RGB, levels 0 to 255.
"""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import Any

import numpy as np

from studio.errors import WeightsMissing
from studio.metrics.shapes import check_pair, check_side

PEAK = 255.0
"""The largest level: MAX in PSNR, L in SSIM."""

SSIM_LEAST_SIDE = 11
"""SSIM's Gaussian window, σ = 1.5, cut to 11×11 pixels (Wang et al. 2004)."""

MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""β = γ of scales 1 to 5, finest first, and α of the last (Wang, Simoncelli and Bovik 2003)."""

# At scale n the picture is 2^(n-1) times smaller and must still hold the window: 11, 22, 44, 88, 176. torchmetrics asks
# for 11 (n-1)² instead, which is the same at 1, 3 and 5 scales, too little at 2 and too much at 4: here, the larger.
MS_SSIM_LEAST_SIDES = (11, 22, 44, 99, 176)
"""Smallest side, in pixels, that allows 1, 2, 3, 4 and 5 scales."""

LPIPS_LEAST_SIDE = 31
"""Below it AlexNet's second pooling has nothing left to pool."""

LPIPS_WEIGHTS = "alexnet-owt-7be5be79.pth"
"""File name of AlexNet's ImageNet weights in torch hub's checkpoints folder, where torchvision looks for it."""


def psnr(clip: np.ndarray, reference: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB over all pixels of the clip at once: 10 log10(255² / MSE).

    Not the mean of the frames' own ratios, which one perfect frame would make infinite. Equal clips give `math.inf`,
    which JSON has no word for: `studio.metrics.scores_to_json` writes it.
    """
    return float(decibels(squared_error(clip, reference).mean()))


def psnr_per_frame(clip: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """float64, (F,): the same ratio of each frame by itself; infinity where a frame is equal."""
    return decibels(squared_error(clip, reference))


def ssim(clip: np.ndarray, reference: np.ndarray) -> float:
    """Structural similarity, the mean over frames; 1 for equal clips, near 0 for unrelated ones.

    Z. Wang, A. C. Bovik, H. R. Sheikh, E. P. Simoncelli, "Image Quality Assessment: From Error Visibility to Structural
    Similarity", IEEE TIP 13(4), 2004, with their Gaussian window and constants K1 = 0.01, K2 = 0.03. They measure
    luminance; here each of R, G and B is measured and the three are averaged, so that a change of hue counts too.
    """
    return float(ssim_per_frame(clip, reference).mean())


def ssim_per_frame(clip: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """float64, (F,): structural similarity of each frame."""
    check_pair(clip, reference)
    check_side(clip, SSIM_LEAST_SIDE, "SSIM")
    from skimage.metrics import structural_similarity

    # The library's own defaults are another measure: a flat 7×7 window and the sample covariance.
    similarities = [
        structural_similarity(
            shown,
            meant,
            channel_axis=-1,
            data_range=PEAK,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        for shown, meant in zip(clip, reference, strict=True)
    ]
    return np.array(similarities, np.float64)


def ms_ssim(clip: np.ndarray, reference: np.ndarray) -> float:
    """Multi-scale structural similarity, the mean over frames; 1 for equal clips, 0 at worst.

    Z. Wang, E. P. Simoncelli, A. C. Bovik, "Multiscale Structural Similarity for Image Quality Assessment", Asilomar
    2003. Their five scales need frames of 176×176 pixels. Smaller frames are measured at fewer scales, as many as
    `ms_ssim_scales` says, with the weights of those scales divided by their sum: such a number stands beside others
    of its own frame size only. `ms_ssim_remark` says so in words. Nothing is ever enlarged.

    A structure that is inverted counts as 0, since a negative number has no fractional power. Reckoned in single
    precision: right to about six digits on pictures, to three on flat and nearly white ones.
    """
    check_pair(clip, reference)
    check_side(clip, MS_SSIM_LEAST_SIDES[0], "MS-SSIM")
    import torch
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

    weights = MS_SSIM_WEIGHTS[: ms_ssim_scales(clip.shape[1], clip.shape[2])]
    betas = tuple(weight / sum(weights) for weight in weights)

    def similarity(shown: np.ndarray, meant: np.ndarray) -> float:
        if np.array_equal(shown, meant):
            return 1.0  # by definition; the rounding below would make 0.9992 of white beside white
        # Single precision: in double, torch's grouped convolution takes more than 10 times as long.
        x, y = (torch.from_numpy(frame.transpose(2, 0, 1)[None].astype(np.float32)) for frame in (shown, meant))
        measured = multiscale_structural_similarity_index_measure(
            x, y, sigma=1.5, data_range=PEAK, betas=betas, normalize="relu"
        )
        return float(measured)

    return math.fsum(map(similarity, clip, reference)) / len(clip)


def ms_ssim_scales(height: int, width: int) -> int:
    """How many of the five scales frames of this size allow; 0 where not even the first fits."""
    return sum(min(height, width) >= least for least in MS_SSIM_LEAST_SIDES)


def ms_ssim_remark(clip: np.ndarray) -> str | None:
    """What to print beside the number where it was measured at fewer than five scales."""
    height, width = clip.shape[1:3]
    scales = ms_ssim_scales(height, width)
    if scales == len(MS_SSIM_LEAST_SIDES):
        return None
    shown = "1 scale" if scales == 1 else f"{scales} scales"
    return f"at {shown} instead of 5: frames of {width}×{height} are smaller than {MS_SSIM_LEAST_SIDES[-1]} pixels"


def lpips(clip: np.ndarray, reference: np.ndarray) -> float:
    """Learned perceptual distance with AlexNet's features, the mean over frames; 0 for equal clips.

    R. Zhang, P. Isola, A. A. Efros, E. Shechtman, O. Wang, "The Unreasonable Effectiveness of Deep Features as a
    Perceptual Metric", CVPR 2018, version 0.1 of their weights, which torchmetrics carries. AlexNet's own must already
    lie where torchvision looks for them.

    Raises:
        WeightsMissing: torchvision or those weights are not on this machine.
    """
    check_pair(clip, reference)
    check_side(clip, LPIPS_LEAST_SIDE, "LPIPS")
    network = lpips_network()
    import torch

    def picture(frame: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(frame.transpose(2, 0, 1)[None] * np.float32(2 / PEAK) - 1)

    with torch.inference_mode():
        pairs = zip(clip, reference, strict=True)
        distances = [float(network(picture(shown), picture(meant))) for shown, meant in pairs]
    return sum(distances) / len(distances)


def lpips_network() -> Any:
    """What measures LPIPS, frozen: two batches of pictures (N, 3, H, W) in -1..1 become distances (N, 1, 1, 1).

    Raises:
        WeightsMissing: torchvision or AlexNet's weights are not on this machine.
    """
    missing = lpips_missing()
    if missing is not None:
        raise WeightsMissing(missing, field="lpips", way_out="Leave LPIPS out, or put what it needs in place.")
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    return LearnedPerceptualImagePatchSimilarity(net_type="alex").net.requires_grad_(False)


def lpips_missing() -> str | None:
    """Why LPIPS cannot be measured on this machine; None where it can. Looks at the disk only, and loads no weights."""
    if importlib.util.find_spec("torchvision") is None:
        return "LPIPS needs torchvision for AlexNet, and it is not installed."
    import torch

    if not (Path(torch.hub.get_dir()) / "checkpoints" / LPIPS_WEIGHTS).is_file():
        return f"LPIPS needs AlexNet's weights, and {LPIPS_WEIGHTS} is not in torch hub's checkpoints folder."
    return None


def squared_error(clip: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """float64, (F,): each frame's mean squared error; one at a time, since a clip as int32 is four times as large."""
    check_pair(clip, reference)
    differences = (shown.astype(np.int32) - meant for shown, meant in zip(clip, reference, strict=True))
    return np.array([np.square(difference).mean(dtype=np.float64) for difference in differences])


def decibels(error: np.ndarray | float) -> np.ndarray:
    """What PSNR makes of a mean squared error."""
    with np.errstate(divide="ignore"):  # an error of 0 is meant to give infinity
        return 10 * np.log10(np.divide(PEAK**2, error))
