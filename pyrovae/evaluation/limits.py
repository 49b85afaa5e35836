"""How much is held in memory at a time; every function that draws takes these as keyword arguments."""

MAX_ROWS = 2**12
"""Draws times data of one run of the programs: what a network keeps for each of these rows sets the memory."""
MAX_WEIGHTS = 2**20
"""Log weights held at a time, of 8 bytes and a few copies each: as many data are taken together as this allows."""
