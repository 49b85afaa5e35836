"""Variational autoencoders as what they are: a pair of Pyro programs, a model and its importance-sampling proposal."""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyrovae.engine import LogWeights as LogWeights
    from pyrovae.engine import Plates as Plates
    from pyrovae.engine import find_plates as find_plates
    from pyrovae.engine import log_weights as log_weights
    from pyrovae.errors import InputError as InputError
    from pyrovae.evaluation import AnnealedLikelihood as AnnealedLikelihood
    from pyrovae.evaluation import Bidirectional as Bidirectional
    from pyrovae.evaluation import BoundCurve as BoundCurve
    from pyrovae.evaluation import Comparison as Comparison
    from pyrovae.evaluation import GradientStatistics as GradientStatistics
    from pyrovae.evaluation import LogLikelihood as LogLikelihood
    from pyrovae.evaluation import annealed_importance_sampling as annealed_importance_sampling
    from pyrovae.evaluation import bidirectional as bidirectional
    from pyrovae.evaluation import bound_curve as bound_curve
    from pyrovae.evaluation import compare as compare
    from pyrovae.evaluation import gradient_statistics as gradient_statistics
    from pyrovae.evaluation import impute as impute
    from pyrovae.evaluation import log_likelihood as log_likelihood
    from pyrovae.evaluation import refine as refine
    from pyrovae.experiment import load as load
    from pyrovae.objectives import ELBO as ELBO
    from pyrovae.objectives import IWAE as IWAE
    from pyrovae.objectives.compiled import compile as compile
    from pyrovae.sklearn_estimator import VAEEstimator as VAEEstimator
    from pyrovae.training import fit as fit
    from pyrovae.vae import VAE as VAE

_homes = {
    "AnnealedLikelihood": "evaluation",
    "Bidirectional": "evaluation",
    "BoundCurve": "evaluation",
    "Comparison": "evaluation",
    "ELBO": "objectives",
    "GradientStatistics": "evaluation",
    "IWAE": "objectives",
    "InputError": "errors",
    "LogLikelihood": "evaluation",
    "LogWeights": "engine",
    "Plates": "engine",
    "VAE": "vae",
    "VAEEstimator": "sklearn_estimator",
    "annealed_importance_sampling": "evaluation",
    "bidirectional": "evaluation",
    "bound_curve": "evaluation",
    "compare": "evaluation",
    "compile": "objectives.compiled",
    "find_plates": "engine",
    "fit": "training",
    "gradient_statistics": "evaluation",
    "impute": "evaluation",
    "load": "experiment",
    "log_likelihood": "evaluation",
    "log_weights": "engine",
    "refine": "evaluation",
}
_rooms = {"compiling", "data", "engine", "evaluation", "experiment", "guides", "likelihoods", "networks", "objectives"}
_rooms |= {"plots", "priors", "runs", "training"}
__all__ = list(_homes)


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: ``pyrovae --help`` need not wait for torch."""
    if name == "__version__":
        return version("pyrovae")
    if name in _rooms:
        return import_module(f"pyrovae.{name}")
    if name not in _homes:
        raise AttributeError(f"module 'pyrovae' has no attribute {name!r}")
    return getattr(import_module(f"pyrovae.{_homes[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_homes, *_rooms})
