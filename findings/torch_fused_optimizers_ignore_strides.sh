#!/usr/bin/env bash
# torch 2.14.1, on a CPU: the fused kernels of torch.optim.SGD and Adam read a gradient in the order in which it lies in memory,
# whatever its strides, so that a weight whose .grad is laid out otherwise than itself moves by a permuted gradient, without a
# word. torch lets .grad have any strides, and layouts do differ: the gradient of a convolution may come with its channels last.
# The foreach and the plain kernels are right. Such a gradient arises where strides are planned on fake tensors: there
# native_group_norm of a channels_last picture gives contiguous strides, and the real operator gives channels_last ones.
#
# Seen: "SGD, fused: moved by the gradient: False", "Adam, fused: ... False", True for the foreach and the plain ones; strides
# of native_group_norm "real (12, 1, 6, 3), fake (12, 4, 2, 1)".
#
# Exits with 0 where this is still so, and with 1 where it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/environment"
"$folder/environment/bin/pip" install -q torch==2.14.1
"$folder/environment/bin/python" - <<'PYTHON'
import torch
from torch._subclasses import FakeTensorMode

kinds = {"fused": {"fused": True}, "foreach": {"foreach": True}, "plain": {"foreach": False}}
gradient = torch.tensor([[1.0, -1.0, -1.0], [1.0, 1.0, -1.0]])


def moved(cls, options, laid_out):
    """Where a step from zero takes a weight."""
    weight = torch.nn.Parameter(torch.zeros(2, 3))
    weight.grad = laid_out
    cls([weight], lr=1.0, **options).step()
    return weight.detach()


right = {}
for cls in (torch.optim.SGD, torch.optim.Adam):
    for kind, options in kinds.items():
        turned = gradient.T.contiguous().T  # the same numbers, in another order in memory
        right[cls, kind] = torch.allclose(moved(cls, options, turned), -gradient)
        print(f"{cls.__name__}, {kind}: moved by the gradient: {right[cls, kind]}")

picture = torch.randn(1, 3, 2, 2).contiguous(memory_format=torch.channels_last)
weight, bias = torch.ones(3), torch.zeros(3)
real = torch.native_group_norm(picture, weight, bias, 1, 3, 4, 1, 1e-5)[0].stride()
with FakeTensorMode() as mode:
    given = [mode.from_tensor(value) for value in (picture, weight, bias)]
    fake = torch.native_group_norm(*given, 1, 3, 4, 1, 1e-5)[0].stride()
print(f"real {real}, fake {fake}")
still = all(value == (kind != "fused") for (_, kind), value in right.items()) and real != fake
print("as stated" if still else "changed")
raise SystemExit(not still)
PYTHON
