"""The latent space of any pair: its KL, its aggregate posterior, the place of data in it, and what the model decodes."""
