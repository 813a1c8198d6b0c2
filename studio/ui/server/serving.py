"""Files that leave the house: copies in the page's own temporary folder, under a name that says what they are.

Gradio serves what lies in its upload folder; the folder with everybody's runs is blocked outright. Knows the two
folders. Refuses to know who may see what, and of a run to hand out anything but its finished clip.
"""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path

from gradio.utils import get_upload_folder

from studio.records.run import Run
from studio.ui.wording import clip_name


def clip_to_serve(run: Run) -> str | None:
    """Path of a copy of a run's clip that the page may show; None where the run has none."""
    if run.state != "complete" or not run.video.is_file():
        return None
    return copy_to_serve(run.video, clip_name(run))


def copy_to_serve(file: Path, name: str) -> str:
    """Path of a copy of a file, under that name, that the page may show; who asks has made sure that it may be seen."""
    folder = Path(get_upload_folder()) / "clips" / secrets.token_hex(16)
    folder.mkdir(parents=True)
    path = folder / name
    try:
        os.link(file, path)
    except OSError:  # another disk, or a file system without links
        shutil.copyfile(file, path)
    return str(path)


def poster_bytes(run: Run) -> bytes:
    """A run's poster, a small JPEG; nothing where it has none."""
    try:
        return run.thumbnail.read_bytes() if run.state == "complete" else b""
    except OSError:
        return b""
