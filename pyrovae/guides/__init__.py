"""Guides q(z | x), one family a file."""

from pyrovae.guides.diagonal_normal import DiagonalNormal
from pyrovae.guides.flow import Flow
from pyrovae.guides.full_rank_normal import FullRankNormal
from pyrovae.guides.guide import Guide
from pyrovae.guides.hierarchical import Hierarchical
from pyrovae.guides.inverse_autoregressive import InverseAutoregressive
from pyrovae.guides.ladder import Ladder
from pyrovae.guides.low_rank_normal import LowRankNormal
from pyrovae.guides.mixture_normal import MixtureNormal
from pyrovae.guides.von_mises_fisher import VonMisesFisher

__all__ = [
    "DiagonalNormal",
    "Flow",
    "FullRankNormal",
    "Guide",
    "Hierarchical",
    "InverseAutoregressive",
    "Ladder",
    "LowRankNormal",
    "MixtureNormal",
    "VonMisesFisher",
]
