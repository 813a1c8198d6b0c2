"""The surroundings of a clip: those that its bits depend on (`studio.processor` says which), and the number of threads.

Knows how they are asked for. Refuses to import torch: whoever has it hands it over.
"""

from __future__ import annotations

import platform
import sys
from importlib.metadata import version
from types import ModuleType

import studio


def environment(torch: ModuleType | None = None) -> dict[str, str]:
    """Versions, Python and the platform; with `torch` also what it makes of this machine."""
    here = {
        "dailies": studio.__version__,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        **{name: version(name) for name in ("torch", "diffusers", "transformers")},
    }
    if torch is not None:
        here |= {
            "torch_threads": str(torch.get_num_threads()),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        }
        here |= {"cuda": torch.version.cuda or ""} if torch.cuda.is_available() else {}
    return here
