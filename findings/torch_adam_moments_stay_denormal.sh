#!/usr/bin/env bash
# torch 2.14.1 on x86: the first moment that torch.optim.Adam keeps for a weight whose gradient becomes zero, and stays so, does
# not become zero. It shrinks by beta1 a step until rounding to nearest puts it back where it was, at a few times the smallest
# denormal number of float32, and stays there for ever. Arithmetic on denormal numbers is slow, and so is each step from then
# on: weights of pixels that are (almost) always black are such. The fused, the foreach and the plain kernels are alike in it.
# torch.set_flush_denormal(True), as XLA computes, lets the moments become zero; it holds for the thread that calls it.
#
# Seen: after 1,200 steps without a gradient, "as it is, fused: 5.6e-45, last 100 steps took 8.01 of the first", "as it is,
# foreach: 5.6e-45, ... 4.23", "as it is, plain: 5.6e-45, ... 4.69"; "flushed, fused: 0, ... 1.03", and 1.00 for the others.
# (The times are printed, and decide nothing.)
#
# Exits with 0 where this is still so, and with 1 where it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/environment"
"$folder/environment/bin/pip" install -q torch==2.14.1
"$folder/environment/bin/python" - <<'PYTHON'
from time import perf_counter

import torch

torch.set_num_threads(1)
kinds = {"fused": {"fused": True}, "foreach": {"foreach": True}, "plain": {"foreach": False}}


def trained(kind):
    """The largest first moment at the end, and how much longer the last 100 steps took than the first 100."""
    weight = torch.nn.Parameter(torch.ones(100_000))
    optimizer = torch.optim.Adam([weight], **kinds[kind])
    weight.grad, seconds = torch.ones_like(weight), []
    for step in range(1_200):
        began = perf_counter()
        optimizer.step()
        seconds.append(perf_counter() - began)
        weight.grad = torch.zeros_like(weight)
    return optimizer.state[weight]["exp_avg"].abs().max().item(), sum(seconds[-100:]) / sum(seconds[50:150])


found = {}
for flushed in (False, True):
    torch.set_flush_denormal(flushed)
    for kind in kinds:
        moment, ratio = trained(kind)
        torch.set_flush_denormal(False)  # or the moment would be printed as zero
        print(f"{'flushed' if flushed else 'as it is'}, {kind}: {moment:.2g}, last 100 steps took {ratio:.2f} of the first")
        torch.set_flush_denormal(flushed)
        found[flushed, kind] = moment
torch.set_flush_denormal(False)
still = all((0 < moment < 1e-43) != flushed for (flushed, _), moment in found.items())
print("as stated" if still else "changed")
raise SystemExit(not still)
PYTHON
