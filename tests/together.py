"""Two processes that train together; run as ``python together.py FOLDER RANK``, or, for what one process finds, imported.

The environment variable TOGETHER_ON says what they compute on, a CPU by gloo or CUDA devices by NCCL.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyro
import torch
from checks import RowNoise
from programs import GaussianGuide, LinearGaussian
from pyro.infer.autoguide import AutoNormal
from torch import Tensor, distributed
from torch.nn.parallel import DistributedDataParallel
from user_network import Normalised

from pyrovae import ELBO, IWAE, VAE
from pyrovae.likelihoods import Normal
from pyrovae.networks import MLP
from pyrovae.objectives import BetaELBO, Objective
from pyrovae.runtime.batches import Columns
from pyrovae.training.random_numbers import random_states, restore_random_states
from pyrovae.training.steps import Steps

device = torch.device(os.environ.get("TOGETHER_ON", "cpu"))
SIZE, BATCH = 11, 4
"""The last batch has three data, of which the first process has two."""
adam = partial(torch.optim.Adam, lr=1e-2)
sgd = partial(torch.optim.SGD, lr=0.1)
objectives = {"elbo": ELBO(3, analytic_kl=False), "iwae": IWAE(5)}


def linear(objective: Objective, optimizer: Callable = adam, seed: int = 0, **settings) -> tuple[Steps, Tensor]:
    pyro.set_rng_seed(seed)
    model = LinearGaussian()
    with torch.no_grad():
        model.bias.add_(seed)
    guide, x = GaussianGuide(model, shift=0.3), model.data(25).to(device)
    module = objective(model.to(device), guide.to(device))
    module.start(x)
    return Steps(module, optimizer(module.parameters()), **settings), x


def state(steps: Steps) -> dict[str, Tensor]:
    return {**steps.module.state_dict(), **dict(steps.module.named_buffers())}


def rows(number: int, share: Callable[[int], slice]) -> Tensor:
    """Those of the data, batch after batch, that a process has."""
    return torch.cat([batch[share(len(batch))] for batch in torch.arange(number).split(BATCH)])


def same_noise(name: str, accumulate: int, clip_norm: float | None, streamed: bool = False) -> dict[str, Any]:
    """An epoch whose noise belongs to the rows, whichever process draws it."""
    settings = {"batch_size": BATCH, "accumulate": accumulate, "clip_norm": clip_norm, "compile": False}
    steps, x = linear(objectives[name], sgd, **settings)
    with RowNoise(SIZE, rows(SIZE, steps.processes.share)).drawn():
        if not streamed:
            means = steps.walk(Columns(x[:SIZE]))
        else:
            batches = [batch[steps.processes.share(len(batch))] for batch in x[:SIZE].split(BATCH)]
            means = steps.stream(map(Columns, batches), size=SIZE)
    return {**state(steps), "sums": means.sums, "count": means.count}


def hundred(compile: bool, rank: int) -> dict[str, Any]:
    """A hundred steps, the last of each epoch on a single datum, with noise of its own in each process."""
    steps, x = linear(IWAE(2), batch_size=BATCH, clip_norm=0.5, ema=0.9, compile=compile)
    pyro.set_rng_seed(10 + rank)
    sums, number = [], 0
    while number < 100:
        sums.append(steps.walk(Columns(x), torch.randperm(25, generator=torch.Generator().manual_seed(number))).sums)
        number += steps.progress.done
    with steps.averaged():
        averages = {f"average {name}": value.clone() for name, value in state(steps).items()}
    return {**state(steps), **averages, "sums": torch.stack(sums), "noise": torch.rand(1), "number": number}


def statistics(rank: int) -> dict[str, Any]:
    """Batches of different numbers, normalised."""
    pyro.set_rng_seed(0)
    vae = VAE((4,), 2, encoder=Normalised, decoder=partial(MLP, hidden=(3,)), likelihood=Normal).to(device)
    module, x = BetaELBO(warmup=9)(vae.model, vae.guide), torch.randn(9, 4).to(device)
    module.start(x)
    steps = Steps(module, adam(module.parameters()), batch_size=5, compile=False)
    pyro.set_rng_seed(10 + rank)
    steps.walk(Columns(x))
    return state(steps)


def not_finite(nonfinite: str, accumulate: int, rank: int) -> dict[str, Any]:
    """The second process' share of the third batch has a datum that is not a number."""
    steps, x = linear(IWAE(2), batch_size=BATCH, nonfinite=nonfinite, accumulate=accumulate, compile=False)
    before, said = {name: value.clone() for name, value in state(steps).items()}, ""
    x[2 * BATCH + 3] = torch.nan
    try:
        means = steps.walk(Columns(x[:22]))
        counts = {"count": means.count, "sums": means.sums}
    except ValueError as error:
        said, counts = f"{type(error).__name__}: {error}", {}
    return {
        "before": before,
        "after": state(steps),
        "said": said,
        "done": steps.progress.done,
        "skipped": steps.progress.skipped,
        **counts,
    }


def refused(wish: Callable[[], Any]) -> str:
    try:
        wish()
    except ValueError as error:
        return f"{type(error).__name__}: {error}"
    return ""


def by_place() -> Steps:
    """Steps on a guide that has parameters for each datum."""
    pyro.set_rng_seed(0)
    model = LinearGaussian()
    module = ELBO()(model, AutoNormal(model))
    module.start(model.data(8))
    return Steps(module, adam(module.parameters()), batch_size=8)


def refusals(rank: int) -> dict[str, str]:
    return {
        "unequal": refused(lambda: linear(ELBO(), seed=rank, batch_size=BATCH)),
        "coupled": refused(lambda: linear(BetaELBO(free_bits=0.1), batch_size=BATCH)),
        "by place": refused(by_place),
        "small": refused(lambda: linear(ELBO(), batch_size=1)),
        "size": refused(lambda: linear(ELBO(), batch_size=BATCH)[0].stream([])),
    }


def stopped(rank: int) -> list[tuple[int, bool]]:
    """The second process wishes to stop after three batches."""
    steps, x = linear(ELBO(), batch_size=BATCH, compile=False)
    seen = []

    def between() -> None:
        seen.append((steps.progress.done, steps.stop.agreed))
        if rank == 1 and steps.progress.done == 3:
            steps.stop.request()

    steps.progress.between = between
    steps.walk(Columns(x))
    return seen


def interrupted(rank: int) -> bool:
    """Whether an epoch that is taken up again has the result of one that was not interrupted."""

    class Interrupted(Exception):
        pass

    def begun() -> Steps:
        steps, _ = linear(IWAE(2), batch_size=BATCH, compile=False)
        pyro.set_rng_seed(10 + rank)
        return steps

    def interrupt() -> None:
        if steps.progress.done == 3:
            kept.extend([steps.state(), steps.optimizer.state_dict(), random_states(device)])
            raise Interrupted

    kept: list[Any] = []
    whole, x = begun(), linear(IWAE(2), batch_size=BATCH)[1]
    pyro.set_rng_seed(10 + rank)
    sums = whole.walk(Columns(x)).sums
    steps = begun()
    steps.progress.between = interrupt
    with suppress(Interrupted):
        steps.walk(Columns(x))
    again = begun()
    again.module.load_state_dict(steps.module.state_dict())
    again.optimizer.load_state_dict(kept[1])
    again.progress.restore(kept[0])
    restore_random_states(kept[2], device)
    means = again.walk(Columns(x))
    return torch.equal(means.sums, sums) and all(torch.equal(v, state(whole)[n]) for n, v in state(again).items())


def by_torch(rank: int) -> dict[str, Tensor]:
    """Gradients of the mean loss by torch's own module for processes, which means over them, of a batch of ten."""
    steps, x = linear(IWAE(5), batch_size=10)
    whole = DistributedDataParallel(steps.module)
    share = steps.processes.share(10)
    with RowNoise(10, torch.arange(10)[share]).drawn():
        (whole(x[:10][share]) * 2 / 10).backward()
    return {name: value.grad for name, value in steps.module.named_parameters()}


def by_steps() -> dict[str, Tensor]:
    """The same of a step of this library's."""
    steps, x = linear(IWAE(5), partial(torch.optim.SGD, lr=1.0), batch_size=10, compile=False)
    with RowNoise(10, torch.arange(10)[steps.processes.share(10)]).drawn():
        steps.walk(Columns(x[:10]))
    return {name: value.grad for name, value in steps.module.named_parameters()}


def run_two(script: str, folder: Path, on: str) -> list[tuple[str, int]]:
    """What each of two processes of a script said, and its exit status."""
    command = [sys.executable, "-W", "ignore", script, str(folder)]
    environment = {**os.environ, "PYTHONPATH": ":".join(sys.path), "TOGETHER_ON": on}
    both = [subprocess.Popen([*command, rank], env=environment, stderr=subprocess.PIPE, text=True) for rank in ("0", "1")]
    return [(process.communicate(timeout=500)[1], process.returncode) for process in both]


@contextmanager
def joined(folder: str, rank: int) -> Iterator[None]:
    """Within it there is a group of two, which NCCL takes for processes of two machines where it has but one device."""
    if device.type == "cuda":
        devices = torch.cuda.device_count()
        torch.cuda.set_device(rank % devices)
        if devices == 1:
            os.environ["NCCL_HOSTID"] = str(rank)
    backend = "nccl" if device.type == "cuda" else "gloo"
    distributed.init_process_group(backend, init_method=f"file://{folder}/store", rank=rank, world_size=2)
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def main(folder: str, rank: int) -> None:
    """What is recorded is not fused on a CPU, which takes a compiler's run, and is tested by itself."""
    fused = nullcontext() if device.type == "cuda" else patch("torch._inductor.compile", lambda graph, *_, **__: graph)
    with joined(folder, rank), fused:
        torch.save(findings(rank), f"{folder}/{rank}.pt")


def findings(rank: int) -> dict[Any, Any]:
    """All that is looked at."""
    return {
        **{("gradients", *case): same_noise(*case) for case in CASES},
        "eager": hundred(False, rank),
        "compiled": hundred(True, rank),
        "statistics": statistics(rank),
        **{(word, accumulate): not_finite(word, accumulate, rank) for word in ("stop", "skip") for accumulate in (1, 2)},
        "refusals": refusals(rank),
        "stopped": stopped(rank),
        "interrupted": interrupted(rank),
        "torch": by_torch(rank),
        "steps": by_steps(),
    }


CASES = [(name, batches, norm) for name in objectives for batches in (1, 2) for norm in (None, 0.05)]
CASES.append(("iwae", 2, None, True))

if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
