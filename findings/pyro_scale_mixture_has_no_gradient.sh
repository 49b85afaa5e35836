#!/usr/bin/env bash
# Pyro 1.9.2 (torch 2.14.1): the density of pyro.distributions.GaussianScaleMixture can be computed and not differentiated, and
# so cannot be trained: its log_prob subtracts in place from the output of logsumexp, which logsumexp's gradient needs.
# The three other mixtures of normals of Pyro can be differentiated, and so can this one's pathwise draws.
#
# Seen: log_prob(x).backward() raises RuntimeError, "one of the variables needed for gradient computation has been modified by an
# inplace operation"; the gradient of a draw is there.
#
# Exits with 0 where this is still so, and with 1 where it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/environment"
"$folder/environment/bin/pip" install -q torch==2.14.1 pyro-ppl==1.9.2
"$folder/environment/bin/python" - <<'PYTHON'
import pyro.distributions as dist
import torch


def mixture():
    scales, weights = torch.ones(3, requires_grad=True), torch.tensor([0.5, 2.0], requires_grad=True)
    return dist.GaussianScaleMixture(scales, torch.zeros(2, requires_grad=True), weights)


mixture().rsample().sum().backward()
print("the gradient of a draw is there")
density = mixture().log_prob(torch.tensor([0.1, -0.3, 0.7]))
print(f"log density {density.item():.3f}")
try:
    density.backward()
    still = False
except RuntimeError as error:
    still = "modified by an inplace operation" in str(error)
    print(str(error).split(":")[0])
print("as stated" if still else "changed")
raise SystemExit(not still)
PYTHON
