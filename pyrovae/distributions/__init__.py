"""Distributions that neither torch, Pyro nor zuko has, one a file."""
