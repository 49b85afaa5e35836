"""What upper bounds share: nothing in the model may be moved by them."""

import torch
from torch import nn

from pyrovae.errors import InputError
from pyrovae.parameters import owner
from pyrovae.weights import Call, Site


def require_fixed_model(bound: str, call: Call) -> None:
    """Raise an InputError where lowering an upper bound would change the model, and make it worse."""
    module = owner(call.model)
    if not torch.is_grad_enabled():
        return
    if isinstance(module, nn.Module):
        moved = [name for name, value in module.named_parameters() if value.requires_grad]
    else:
        trace = call.observe(call.draw())
        moved = [name for name, site in trace.nodes.items() if _is_trained(site)]
    if moved:
        raise InputError(
            f"{bound} is an upper bound on log p(x), and lowering it would make the model worse ({moved[0]} and "
            f"{len(moved) - 1} other parameters would move): evaluate it under torch.no_grad(), or freeze the model by "
            "requires_grad_(False) to fit the guide alone"
        )


def _is_trained(site: Site) -> bool:
    return site["type"] == "param" and site["value"].requires_grad
