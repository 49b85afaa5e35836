"""The path of densities that chains follow, from one that can be sampled to the posterior."""
