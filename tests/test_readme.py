"""Every snippet of README runs as it is printed, in order, in one namespace."""

import re
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch

README = Path(__file__).parent.parent / "README.md"
SMALL = {
    "epochs=50": "epochs=1",
    "epochs=20": "epochs=1",
    "epochs=100": "epochs=1",
    "IWAE(5))\n": "IWAE(5), epochs=1)\n",
    'estimator="dreg"))': 'estimator="dreg"), epochs=1)',
    "VIMCO(10))": "VIMCO(10), epochs=1)",
    "IWAE(50)))": "IWAE(50), 5))",
    "print(pyrovae.log_likelihood(vae, x))": "print(pyrovae.log_likelihood(vae, x[:20]))",
    "log_likelihood(conditional, table))": "log_likelihood(conditional, table, 50))",
    "log_likelihood((model, guide), x))": "log_likelihood((model, guide), x[:20]))",
    "few = x[:20]": "few = x[:3]",
    "bound_curve(pair, x)": "bound_curve(pair, x[:10])",
    "[1, 2, 4]}, cv=3": "[1, 2]}, cv=2",
    "log_likelihood(vae, x, proposal": "log_likelihood(vae, x[:20], proposal",
    "temperatures=1000": "temperatures=3",
    "few, tolerance=0.1": "few[:4], tolerance=0.5",
    '"two latents": other}, x)': '"two latents": other}, x[:20])',
    "fit(other, data.train, data.validation)": "fit(other, data.train, data.validation, epochs=1)",
}
"""What takes long, and what stands in its place here; ``pytest -m slow`` runs all as it is printed."""


untrained = pytest.mark.filterwarnings("ignore:Pareto k-hat exceeds")
"""What is trained for an epoch has weights with heavy tails."""


def snippets(text: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def run_in_order(text: str) -> dict:
    namespace: dict = {"__name__": "readme"}
    for number, snippet in enumerate(snippets(text), 1):
        exec(compile(snippet, f"snippet {number} of README.md", "exec"), namespace)
    return namespace


@untrained
def test_every_snippet_runs(unfused):
    text = README.read_text()
    for long, short in SMALL.items():
        assert long in text, f"{long!r} is not in README"
        text = text.replace(long, short)
    check(run_in_order(text))


@pytest.mark.slow
@untrained
def test_every_snippet_runs_as_it_is_printed():
    check(run_in_order(README.read_text()))


def check(made: dict) -> None:
    """The shapes that comments in README state."""
    assert made["weights"].shape == (100, 270)
    assert torch.as_tensor(made["completed"]).shape == (10, 270, 8, 8)
    assert made["search"].best_params_
    plt.close("all")
