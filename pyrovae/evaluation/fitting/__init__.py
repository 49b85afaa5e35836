"""Proposals fitted to each datum: normal distributions of the latents in unconstrained space, and what is made of them."""
