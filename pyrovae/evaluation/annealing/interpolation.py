"""Linear interpolation of tables, a column a datum."""

from torch import Tensor, searchsorted


def interpolated(at: Tensor, places: Tensor, values: Tensor) -> Tensor:
    """Interpolate values ``(n, B, ...)``, known at ascending places ``(n,)`` or ``(n, B)``, linearly at ``(m, B)``."""
    places = (places if places.dim() == 2 else places[:, None].expand(-1, at.shape[1])).contiguous()
    upper = searchsorted(places.T.contiguous(), at.T.contiguous()).T.clamp(1, len(places) - 1)
    low, high = places.gather(0, upper - 1), places.gather(0, upper)
    share = ((at - low) / (high - low)).clamp(0.0, 1.0)
    more = [None] * (values.dim() - 2)
    index = upper[(..., *more)].expand(-1, *values.shape[1:])
    below, above = values.gather(0, index - 1), values.gather(0, index)
    return below + share[(..., *more)].to(values.dtype) * (above - below)
