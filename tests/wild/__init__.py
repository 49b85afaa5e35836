"""Pyro programs as strangers write them, held against stock Pyro and against answers that are known."""
