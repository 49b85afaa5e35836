#!/usr/bin/env bash
# Pyro 1.9.2 (torch 2.14.1): pyro.distributions.Geometric(logits=...).log_prob of counts held as uint8 is wrong by hundreds of
# nats, without a word, where torch's own Geometric, and Pyro's for int64 and floats, are right.
#
# It computes (-value - 1) * softplus(logits) + logits, and minus an unsigned byte is 256 less it. Counts of an image or a
# table that came in as bytes are valid values of the distribution, also under validation. Seen, of the counts 0, 1, 3 at
# logits = 0, where log p = -(count + 1) log 2:
#
#   uint8   176.75, 176.06, 174.67      int64, float32   -0.69, -1.39, -2.77
#
# which are logarithms of probabilities above one.
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

counts = torch.tensor([0, 1, 3])
exact = -(counts + 1) * torch.tensor(2.0).log()
found = {kind: dist.Geometric(logits=torch.zeros(())).log_prob(counts.to(kind)) for kind in (torch.uint8, torch.int64, torch.float32)}
for kind, values in found.items():
    print(f"{kind!s:15}", *(f"{value:.2f}" for value in values.tolist()))
right = all(torch.allclose(found[kind], exact) for kind in (torch.int64, torch.float32))
still = right and bool(((found[torch.uint8] - exact).abs() > 100.0).any())
print("as stated" if still else "changed")
raise SystemExit(not still)
PYTHON
