"""The log likelihood by importance sampling, and what is computed from its weights: bounds, comparisons, gaps."""
