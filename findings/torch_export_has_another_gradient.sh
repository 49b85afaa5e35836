#!/usr/bin/env bash
# torch 2.14.1 and Pyro 1.9.2: a program that torch.export takes down (strict=False) has the values of the program and can have
# another gradient, without a word, because the forward pass alone is kept, and its operations are differentiated anew.
#
# Whatever an author gave a backward pass of its own is lost: an autograd.Function that reverses the gradient, or one that
# rounds and lets the gradient pass; and so are straight-through draws of Pyro, which are made of such functions. Seen, of the
# sum of the output with respect to the input, here 0.3:
#
#                                          by itself    exported
#   a reversal                                 -1.00        1.00
#   rounding, straight through                  1.00        0.00
#   RelaxedBernoulliStraightThrough             1.97        1.35      of the same draw, times exp(x)
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


class Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return -gradient


class Round(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.round()

    @staticmethod
    def backward(ctx, gradient):
        return gradient


class Draw(torch.nn.Module):
    def forward(self, x):
        return dist.RelaxedBernoulliStraightThrough(torch.tensor(0.5), logits=x).rsample() * x.exp()


class Apply(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function.apply(x)


def gradient(program):
    torch.manual_seed(0)
    x = torch.tensor([0.3], requires_grad=True)
    value = program(x).sum()
    found = torch.autograd.grad(value, x, allow_unused=True)[0] if value.requires_grad else None
    return value.item(), 0.0 if found is None else found.item()


dist.enable_validation(False)  # which looks at numbers, of which an export has none
still = True
for name, module in {"reversal": Apply(Reverse), "rounding": Apply(Round), "straight-through draw": Draw()}.items():
    exported = torch.export.export(module, (torch.tensor([0.3], requires_grad=True),), strict=False).module()
    (value, own), (same, other) = gradient(module), gradient(exported)
    print(f"{name:24} value {value:.2f} {same:.2f}   gradient {own:.3f} {other:.3f}")
    still &= value == same and abs(own - other) > 0.01
print("as stated" if still else "changed")
raise SystemExit(not still)
PYTHON
