"""All rows of the table."""

from tests.wild import axes, counts, guided, images, sequences

PROGRAMS = [*images.ROWS, *counts.ROWS, *sequences.ROWS, *guided.ROWS]
AXES = axes.ROWS
ROWS = [*PROGRAMS, *AXES]
