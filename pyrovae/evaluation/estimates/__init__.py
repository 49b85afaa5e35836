"""Estimates of log p(x) for many data, their errors, and the diagnostics that say whether to trust them."""
