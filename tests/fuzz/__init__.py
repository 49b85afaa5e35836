"""Mutated files for every reader of a file that may be a stranger's: ``python -m tests.fuzz --help``."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))  # where pytest finds what tests share
