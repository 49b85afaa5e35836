"""The log likelihood by annealed importance sampling."""
