"""What is loaded before the page answers: nothing that only the worker needs."""

import subprocess
import sys

HEAVY = ("torch", "diffusers", "transformers", "accelerate", "peft", "scipy", "skimage", "matplotlib", "av", "imageio")
"""Libraries that take a good part of a second each; models are the worker's, behind the page."""


def test_the_page_is_built_without_anything_that_models_need() -> None:
    ask = f"import sys, app; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, timeout=240, check=True)
    assert done.stdout.strip() == "[]"
