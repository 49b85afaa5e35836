"""The controller of log p(x) to a tolerance: each datum climbs from proposal to proposal until its interval is narrow enough."""
