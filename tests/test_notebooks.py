"""The notebooks run as they are, at a small setting, and are kept with the outputs of a full run."""

import os
import re
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
import pytest
from checks import slow_but
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent
SMALL = {
    "01_a_vae_is_two_programs": {
        "DRAWS = 100_000": "DRAWS = 2_000",
        "REPEATS = 500": "REPEATS = 50",
        "EPOCHS = 60": "EPOCHS = 10",
    },
    "02_elbo_and_iwae": {
        'DATA = os.environ.get("PYROVAE_DATA")': "DATA = None",
        "STEPS = 1_500": "STEPS = 42",
        "NUM_SAMPLES = 5_000": "NUM_SAMPLES = 100",
        "REPEATS = 200": "REPEATS = 4",
    },
    "03_swap_priors_and_likelihoods": {"EPOCHS = 100": "EPOCHS = 2", "NUM_SAMPLES = 2_000": "NUM_SAMPLES = 50"},
    "04_your_own_data": {"EPOCHS = 100": "EPOCHS = 2", "NUM_SAMPLES = 1_000": "NUM_SAMPLES = 50"},
    "05_log_likelihood_by_importance_sampling": {
        "K_RANGE = (1, 10, 100, 1_000, 10_000, 100_000)": "K_RANGE = (1, 10, 100)",
        "REPEATS = 100": "REPEATS = 10",
        "EPOCHS = 80": "EPOCHS = 2",
        "NUM_SAMPLES = 5_000": "NUM_SAMPLES = 100",
        "NUM_DATA = 20": "NUM_DATA = 3",
        "TEMPERATURES = (10, 50, 200)": "TEMPERATURES = (2, 4)",
        "NUM_CLOSE = 100": "NUM_CLOSE = 3",
        "TOLERANCES = (0.5, 0.2, 0.1, 0.05, 0.02)": "TOLERANCES = (2.0, 1.0)",
    },
    "06_latent_space": {
        "EPOCHS = 80": "EPOCHS = 2",
        "NUM_SAMPLES = 1_000": "NUM_SAMPLES = 50",
        "STEPS = 200": "STEPS = 3",
    },
    "07_semi_supervised": {
        "EPOCHS = 150": "EPOCHS = 2",
        "NUM_SAMPLES = 1_000": "NUM_SAMPLES = 50",
        "TOLERANCE = 0.2": "TOLERANCE = 3.0",
    },
}
"""The settings of each notebook, and what they are here."""
WARNINGS = "default,ignore:IProgress not found"
"""Shown, all but tqdm's wish for ipywidgets."""
OF_A_MACHINE = re.compile(r"/(work|tmp|root|home|Users|usr|var|opt)/|site-packages|ipykernel_|[A-Z]:\\|Traceback")
"""What has no place in an output."""
SOON = ("02_elbo_and_iwae",)
"""What is run each time; the others are for the night."""
NOTEBOOKS = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))


class RunningInterpreter(KernelSpecManager):
    """The one kernel is the interpreter that runs the tests, whatever kernels are registered."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        return KernelSpec(argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"], language="python")


def read(name: str) -> nbformat.NotebookNode:
    return nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def with_settings(notebook: nbformat.NotebookNode, settings: dict[str, str]) -> nbformat.NotebookNode:
    """The notebook with each of these lines of its first cell, which sets each name once, replaced."""
    first = code_cells(notebook)[0]
    for line, replacement in settings.items():
        name = line.partition(" = ")[0]
        set_by = [cell for cell in code_cells(notebook) if re.search(rf"^\s*{name} = ", cell.source, re.MULTILINE)]
        pattern = re.compile(rf"^{re.escape(line)}(?=  #|$)", re.MULTILINE)
        assert set_by == [first], f"{name} is set outside the first cell"
        first.source, count = pattern.subn(lambda _, new=replacement: new, first.source)
        assert count == 1, f"{line!r} is in the first cell {count} times"
    return notebook


def execute(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Run all cells in a temporary folder, where the user's own settings are not read; the first exception is raised."""
    with TemporaryDirectory() as folder:
        places = dict.fromkeys(("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR"), folder)
        env = os.environ | places | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": WARNINGS}
        files = {"connection_file": f"{folder}/kernel.json", "transport": "ipc", "ip": f"{folder}/kernel"}
        manager = AsyncKernelManager(kernel_spec_manager=RunningInterpreter(), **files)
        place = {"metadata": {"path": folder}}
        client = NotebookClient(notebook, km=manager, resources=place, timeout=600, coalesce_streams=True)
        return client.execute(env=env, cleanup_kc=True)


def outputs(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [output for cell in code_cells(notebook) for output in cell.outputs]


def text_of(output: nbformat.NotebookNode) -> str:
    """All that an output says, without the bytes of its picture."""
    data = output.get("data", {})
    said = [value for kind, value in data.items() if not kind.startswith("image/")]
    return "\n".join(map(str, [output.get("text", ""), *said, *output.get("traceback", [])]))


def pictures(cell: nbformat.NotebookNode) -> int:
    return sum("image/png" in output.get("data", {}) for output in cell.outputs)


def stderr(notebook: nbformat.NotebookNode) -> str:
    return "".join(output.text for output in outputs(notebook) if output.get("name") == "stderr")


def test_each_notebook_has_a_small_setting():
    assert sorted(SMALL) == NOTEBOOKS


@pytest.mark.parametrize("name", slow_but(lambda name: name in SOON, NOTEBOOKS))
def test_runs_at_the_small_setting(name):
    kept = read(name)
    executed = execute(with_settings(read(name), SMALL[name]))
    assert not stderr(executed)
    for cell, before in zip(code_cells(executed), code_cells(kept), strict=True):
        assert pictures(cell) == pictures(before)
        assert bool(cell.outputs) == bool(before.outputs)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_is_kept_as_one_full_run_left_it(name):
    notebook = read(name)
    nbformat.validate(notebook)
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert sum(map(pictures, cells)) >= 2
    assert not stderr(notebook)
    for output in outputs(notebook):
        assert output.output_type != "error"
        assert not OF_A_MACHINE.search(text_of(output))


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_is_small_enough_for_a_repository(name):
    assert (ROOT / "notebooks" / f"{name}.ipynb").stat().st_size < 1_000_000


def test_settings_are_replaced_once_or_not_at_all():
    def notebook(*sources):
        return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])

    settings = {"DRAWS = 10": "DRAWS = 1"}
    changed = with_settings(notebook("x = 1\nDRAWS = 10  # many", "x = DRAWS"), settings)
    assert [cell.source for cell in changed.cells] == ["x = 1\nDRAWS = 1  # many", "x = DRAWS"]
    for sources in [("DRAWS = 100", "x"), ("DRAWS = 10\nDRAWS = 10", "x"), ("DRAWS = 10", "DRAWS = 5"), ("x", "DRAWS = 10")]:
        with pytest.raises(AssertionError, match="DRAWS"):
            with_settings(notebook(*sources), settings)
