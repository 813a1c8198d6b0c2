"""The scripted verb beside the suite's other tests is this folder's too."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
