"""Where the traces for tests are made."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))
