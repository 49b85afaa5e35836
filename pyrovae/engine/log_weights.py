r"""The log importance weights of any Pyro model and guide.

.. math::
    \log w_{kb} = \log p(x_b, z_{kb}) - \log q(z_{kb} \mid x_b), \qquad z_{kb} \sim q(z \mid x_b)

for :math:`K` particles and :math:`B` data: K runs of the guide, and of the model replayed against it, each as its author
wrote it. Where the result is the same they run at once, inside one more, outermost, plate
(:mod:`pyrovae.engine.particles`): what depends on the data alone (the encoder) is computed once a datum, and what depends
on the latent (the decoder) once a particle and datum.

The *data plate* is the plate that encloses every site of model and guide; where several do, the one named ``data``. Its
scale (full size over subsample size) is taken out of the weights and handed back; other plates are summed over.
Everything is in nats.
"""

from typing import Any

from pyrovae.engine.call import Call
from pyrovae.engine.plates import Plates
from pyrovae.engine.programs import PairLike, programs, takes_pair
from pyrovae.engine.validation import find_plates
from pyrovae.engine.weights import LogWeights
from pyrovae.errors import InputError
from pyrovae.runtime.parameters import Program, parameter_store


@takes_pair
def log_weights(pair: PairLike, *args: Any, num_samples: int = 1, plates: Plates | None = None, **kwargs: Any) -> LogWeights:
    r"""Draw ``num_samples`` latents per datum from the guide and weigh them by the model.

    Args:
        pair: a ``VAE``, or the tuple ``(model, guide)`` of two Pyro programs, modules or functions: the model observes the
            data within a plate, and the guide, which has the same latent sites, is the proposal.
        args: what both are called with, usually one batch ``x``.
        num_samples: the number of draws :math:`K` per datum.
        plates: what :func:`find_plates` found for this pair, to spare one run of it. Where several plates enclose
            everything, and none is named ``data``, say here which of them counts the data.
        kwargs: what both are called with, by name.

    Returns:
        The weights, ``.total`` of shape ``(K, B)``, and their terms; gradients flow as autograd is set. Observed sites and
        ``pyro.factor`` statements of the guide, which an objective may have as terms, are no density of the draws, and left
        out.

    Raises:
        InputError: where a site lies outside the data plate or is missing from one of the two programs, where data are
            outside the support of their distribution, and for a weight that is not a number, each of which names the
            site; where several plates could be the data plate, which names them.
    """
    if num_samples < 1:
        raise InputError(f"num_samples is {num_samples}; expected at least 1")
    with parameter_store(*programs(pair)) as (model, guide):
        plates = plates or find_plates((model, guide), *args, **kwargs)
        weights = weigh(model, guide, args, kwargs, num_samples, plates)
    weights.require_numbers()
    return weights.with_proposal_density()


def weigh(model: Program, guide: Program, args: tuple, kwargs: dict, particles: int, plates: Plates | None) -> LogWeights:
    """Log weights in the parameter store that is open, without a look at the numbers: no host synchronisation."""
    call = Call(model, guide, args, kwargs, particles, plates)
    return call.weigh(call.draw())
