"""VMAF, as libvmaf measures it, in the ffmpeg that writes the clips: one process, to which pictures are handed.

    VMAF      Z. Li et al., "Toward a Practical Perceptual Video Quality Metric", Netflix 2016, model vmaf_v0.6.1: a
              regression on how a panel of viewers judged clips of 1080 lines; 0 to 100.
    VMAF-NEG  Z. Li et al., "Toward a Better Quality Metric for the Video Community", Netflix 2020: the same without
              credit for what enhancement gains, such as sharpening; model vmaf_v0.6.1neg.

Both are means over pictures, of BT.709 in 4:2:0 and limited range, which is what the models were made on; pictures are
measured at their own size. Equal clips score a little below 100. The models are built into libvmaf: nothing is
fetched. Refuses to know where the pictures come from.

Shapes: F frames, H rows, W columns; uint8, RGB.
"""

from __future__ import annotations

import json
import re
import subprocess
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any

import numpy as np

from studio.errors import StudioError
from studio.metrics.shapes import check_pair, check_side

MODELS = {"vmaf": "vmaf_v0.6.1", "vmaf_neg": "vmaf_v0.6.1neg"}
"""The models that libvmaf has built in, by what they are called here."""
VMAF_LEAST_SIDE = 32
"""Smallest side, in pixels: of pictures of 16 and less libvmaf dies, and of hardly larger ones it sees one scale."""
_THREADS = 2


def vmaf(clip: np.ndarray, reference: np.ndarray) -> float:
    """How a viewer would judge the clip beside its reference, 0 to 100."""
    return _of_clip(clip, reference)["vmaf"]


def vmaf_neg(clip: np.ndarray, reference: np.ndarray) -> float:
    """VMAF without credit for enhancement, 0 to 100."""
    return _of_clip(clip, reference)["vmaf_neg"]


def _of_clip(clip: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    check_pair(clip, reference)
    with Vmaf(height=clip.shape[1], width=clip.shape[2]) as measuring:
        for shown, meant in zip(clip, reference, strict=True):
            measuring.add(shown, meant)
        return measuring.scores()


@cache
def vmaf_missing() -> str | None:
    """Why VMAF cannot be measured on this machine; None where it can."""
    from imageio_ffmpeg import get_ffmpeg_exe  # here: it looks for the program when imported

    try:
        program = get_ffmpeg_exe()
        filters = subprocess.run([program, "-hide_banner", "-filters"], capture_output=True, text=True, check=True)
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        return f"VMAF needs ffmpeg, and it does not run here: {error}."
    if re.search(r"\blibvmaf\b", filters.stdout) is None:
        return f"VMAF needs an ffmpeg with libvmaf, and {Path(program).name} was built without it."
    return None


class Vmaf:
    """A measuring under way: pictures go in pair by pair, the scores come at the end.

    One stream of pictures, the measured one above its reference, which the filters take apart again: of two streams
    ffmpeg may wait for the one that is not being written.
    """

    def __init__(self, *, height: int, width: int) -> None:
        self._height, self._width = height, width

    def __enter__(self) -> Vmaf:
        from imageio_ffmpeg import get_ffmpeg_exe

        check_side(np.empty((1, self._height, self._width, 0)), VMAF_LEAST_SIDE, "VMAF")
        self._folder = TemporaryDirectory(prefix="vmaf-")
        self._complaints = TemporaryFile()
        command = [
            *(get_ffmpeg_exe(), "-hide_banner", "-nostdin", "-loglevel", "error"),
            *("-f", "rawvideo", "-pix_fmt", "rgb24", "-video_size", f"{self._width}x{2 * self._height}"),
            *("-framerate", "25", "-i", "pipe:0", "-lavfi", self._filters(), "-f", "null", "-"),
        ]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._complaints,
            cwd=self._folder.name,  # so that the log's name needs no escaping
        )
        return self

    def __exit__(self, *_: Any) -> None:
        self._process.kill()
        self._process.wait()
        if self._process.stdin is not None and not self._process.stdin.closed:
            with suppress(OSError):  # what was not written any more
                self._process.stdin.close()
        self._complaints.close()
        self._folder.cleanup()

    def _filters(self) -> str:
        size = f"{self._width}:{self._height}"
        models = "|".join(f"version={model}\\\\:name={name}" for name, model in MODELS.items())
        return (
            f"split[a][b];[a]crop={size}:0:0,{_TO_YUV}[shown];[b]crop={size}:0:{self._height},{_TO_YUV}[meant];"
            f"[shown][meant]libvmaf=log_fmt=json:log_path={_LOG}:n_threads={_THREADS}:model={models}"
        )

    def add(self, picture: np.ndarray, reference: np.ndarray) -> None:
        """The next picture and what it is held against, uint8 (H, W, 3)."""
        stdin = self._process.stdin
        assert stdin is not None
        try:
            for each in (picture, reference):
                stdin.write(np.ascontiguousarray(each).data)
        except OSError:
            raise self._failed() from None

    def scores(self) -> dict[str, float]:
        """Means over all pictures, by name; nothing can be added afterwards.

        Raises:
            StudioError: ffmpeg ended without them.
        """
        try:
            self._process.communicate()
            log = json.loads((Path(self._folder.name) / _LOG).read_text(encoding="utf-8"))
            return {name: float(log["pooled_metrics"][name]["mean"]) for name in MODELS}
        except (OSError, ValueError, KeyError, TypeError):
            raise self._failed() from None

    def _failed(self) -> StudioError:
        self._process.kill()
        status = self._process.wait()
        self._complaints.seek(0)
        complaint = self._complaints.read().decode("utf-8", "replace").strip()[-300:]
        reason = complaint or "it gave no reason"
        return StudioError(f"VMAF could not be measured: ffmpeg ended with status {status}: {reason}.")


_LOG = "vmaf.json"
_TO_YUV = "scale=out_color_matrix=bt709:out_range=tv:flags=bicubic+accurate_rnd+full_chroma_int+bitexact,format=yuv420p"
