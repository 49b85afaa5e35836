"""The means over held-out data at the end of an epoch."""

import torch

from pyrovae.data.split import Split
from pyrovae.objectives.compiled import compile as compile_objective
from pyrovae.runtime.copies import Copies
from pyrovae.runtime.eval_mode import evaluating
from pyrovae.runtime.seeds import GeneratorState
from pyrovae.training.batch_reader import Reader
from pyrovae.training.failing_site import NonFiniteError, blame
from pyrovae.training.means import Means
from pyrovae.training.random_numbers import RandomNumbers
from pyrovae.training.steps import Steps


class Validation:
    """The objective on held-out data, with the same noise in every epoch; full batches are fused where steps are.

    Args:
        steps: of the training.
        split: the held-out data.
        reader: of their batches.
        random: where the noise comes from.
    """

    def __init__(self, steps: Steps, split: Split, reader: Reader, random: RandomNumbers) -> None:
        self._steps = steps
        self._split = split
        self._reader = reader
        self._random = random
        self._fused = compile_objective(steps.module)

    @torch.no_grad()
    def means(self) -> dict[str, float]:
        """Measure all batches, of all processes; return the means, in nats a datum.

        Raises:
            NonFiniteError: where the bound is not finite, naming the site.
        """
        module, device, processes = self._steps.module, self._reader.device, self._steps.processes
        means = Means(module.elbo, device)
        self._random.begin_validation()
        with evaluating(module):
            for batch in self._reader.held_out(self._split):
                fused = self._steps.gradient.compile and len(batch) == self._reader.batch_size
                means.add((self._fused if fused else module).measure(batch.x, **batch.given))
            processes.sum(means.sums)
            means.count = len(self._split)
            if not means.sums[0].isfinite():
                self._blame()
        return means.read("validation")

    def _blame(self) -> None:
        """Measure the batches again, with the same noise, to raise an error that says which has no finite bound, and why."""
        module = self._steps.module
        self._random.begin_validation()
        for batch in self._reader.held_out(self._split):
            noise = GeneratorState(self._reader.device)
            if not module.measure(batch.x, **batch.given).loss.isfinite():
                noise.restore()
                raise NonFiniteError(blame(module, batch))
        raise NonFiniteError(
            "the validation bound is not finite, and was when it was computed again; train with compile=False"
        )


@torch.no_grad()
def require_finite(steps: Steps, train: Split, reader: Reader) -> None:
    """Raise a NonFiniteError where the last step of an epoch was too large, which the next epoch could not mend."""
    batch = reader.first(train)
    batch = batch.with_tensors(train.binarize.draw(batch.x), *batch.given.values())
    before = Copies(steps.module.buffers())
    finite = bool(steps.module.measure(batch.x, **batch.given).loss.isfinite())
    before.restore()
    if steps.processes.any(not finite):
        raise NonFiniteError(blame(steps.module, batch))
