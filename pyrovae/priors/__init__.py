"""Priors p(z), one a file."""

from pyrovae.priors.autoregressive import Autoregressive
from pyrovae.priors.flow import Flow
from pyrovae.priors.hierarchical import Hierarchical
from pyrovae.priors.laplace import Laplace
from pyrovae.priors.learned_normal import LearnedNormal
from pyrovae.priors.mixture import Mixture
from pyrovae.priors.prior import Prior
from pyrovae.priors.standard_normal import StandardNormal
from pyrovae.priors.student_t import StudentT
from pyrovae.priors.uniform_sphere import UniformSphere
from pyrovae.priors.vamp import Vamp
from pyrovae.priors.von_mises_fisher import VonMisesFisher

__all__ = [
    "Autoregressive",
    "Flow",
    "Hierarchical",
    "Laplace",
    "LearnedNormal",
    "Mixture",
    "Prior",
    "StandardNormal",
    "StudentT",
    "UniformSphere",
    "Vamp",
    "VonMisesFisher",
]
