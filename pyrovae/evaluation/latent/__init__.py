"""The latent space of any pair: what its dimensions hold, where data lie in it, and what the model makes of it."""
