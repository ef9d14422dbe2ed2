"""What takes too long for a test: `python -m tests.tools.NAME` from the root."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))  # what tests share
