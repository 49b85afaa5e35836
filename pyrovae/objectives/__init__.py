"""Objectives, from log importance weights to a loss, one a file."""

from pyrovae.objectives.beta_elbo import BetaELBO
from pyrovae.objectives.ciwae import CIWAE
from pyrovae.objectives.cubo import CUBO
from pyrovae.objectives.elbo import ELBO
from pyrovae.objectives.eubo import EUBO
from pyrovae.objectives.gradient_estimators import Estimator
from pyrovae.objectives.info_vae import InfoVAE
from pyrovae.objectives.iwae import IWAE
from pyrovae.objectives.measurement import Evaluation, Measurement
from pyrovae.objectives.miwae import MIWAE
from pyrovae.objectives.objective import Objective
from pyrovae.objectives.objective_module import ObjectiveModule
from pyrovae.objectives.piwae import PIWAE
from pyrovae.objectives.renyi import Renyi
from pyrovae.objectives.reweighted_wake_sleep import ReweightedWakeSleep
from pyrovae.objectives.stratified import SELBO, SIWAE
from pyrovae.objectives.tail_adaptive import TailAdaptive
from pyrovae.objectives.tcvae import TCVAE
from pyrovae.objectives.thermodynamic_elbo import ThermodynamicELBO
from pyrovae.objectives.vimco import VIMCO
from pyrovae.objectives.wake_sleep import WakeSleep
from pyrovae.objectives.weight_bound import WeightBound

__all__ = [
    "CIWAE",
    "CUBO",
    "ELBO",
    "EUBO",
    "IWAE",
    "MIWAE",
    "PIWAE",
    "SELBO",
    "SIWAE",
    "TCVAE",
    "VIMCO",
    "BetaELBO",
    "Estimator",
    "Evaluation",
    "InfoVAE",
    "Measurement",
    "Objective",
    "ObjectiveModule",
    "Renyi",
    "ReweightedWakeSleep",
    "TailAdaptive",
    "ThermodynamicELBO",
    "WakeSleep",
    "WeightBound",
]
