"""Estimates of log p(x) to a tolerance: each datum climbs through proposals until its interval is narrow enough."""
