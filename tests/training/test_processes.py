"""Processes that train together have the steps of one, and the same parameters in each."""

import pytest
import together
import torch
from checks import assert_says

from pyrovae.runtime.processes import Processes

pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture(scope="module", params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def found(request, tmp_path_factory):
    """What each of two processes finds."""
    folder = tmp_path_factory.mktemp("together")
    for said, code in together.run_two(together.__file__, folder, request.param):
        assert code == 0, said
    return [torch.load(folder / f"{rank}.pt", map_location="cpu", weights_only=True) for rank in (0, 1)]


@pytest.mark.parametrize("case", together.CASES, ids=str)
def test_gradients_are_those_of_one_process(case, found):
    alone = together.same_noise(*case)
    for one in found:
        torch.testing.assert_close(one["gradients", *case], alone, rtol=0, atol=1e-10)


@pytest.mark.parametrize("mode", ["eager", "compiled"])
def test_parameters_stay_the_same_to_the_last_bit(mode, found):
    """For a hundred steps, clipped, with noise of their own; in the last of each epoch one process has no datum."""
    one, other = (dict(rank[mode]) for rank in found)
    assert one["number"] >= 100
    assert not torch.equal(one.pop("noise"), other.pop("noise"))
    for name, value in one.items():
        assert torch.equal(torch.as_tensor(value), torch.as_tensor(other[name])), name


def test_compiled_steps_are_eager_steps(found):
    for rank in found:
        eager, compiled = ({**rank[mode], "noise": None} for mode in ("eager", "compiled"))
        torch.testing.assert_close(compiled, eager, rtol=0, atol=1e-9)


def test_buffers_are_those_of_the_first_process(found):
    one, other = (rank["statistics"] for rank in found)
    assert one["state.count"] == 2
    assert not torch.equal(one["guide.encoder.norm.running_mean"], torch.zeros(4))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("accumulate", [1, 2])
class TestNotFinite:
    def test_in_one_process_it_ends_the_run_in_all(self, accumulate, found):
        one, other = (rank["stop", accumulate] for rank in found)
        assert one["said"] == other["said"]
        assert_says(one["said"], "NonFiniteError", "process 1", "loss", "nan", "'z'", "guide", "datum 1")
        assert one["done"] == other["done"] == 2
        assert all(torch.equal(value, other["after"][name]) for name, value in one["after"].items())

    def test_it_is_left_out_by_all(self, accumulate, found):
        one, other = (rank["skip", accumulate] for rank in found)
        assert one["said"] == other["said"] == ""
        assert one["done"] == other["done"] == 6
        assert one["skipped"] == other["skipped"] == 1
        assert one["count"] == other["count"] == 22 - 4 * accumulate
        assert one["sums"].isfinite().all()
        assert torch.equal(one["sums"], other["sums"])
        assert all(torch.equal(value, other["after"][name]) for name, value in one["after"].items())
        assert not torch.equal(one["after"]["model.weight"], one["before"]["model.weight"])


def test_what_cannot_be_shared_is_refused_in_each(found):
    for rank in found:
        said = rank["refusals"]
        assert_says(said["unequal"], "'model.bias'", "process 1", "process 0", "pyro.set_rng_seed")
        assert_says(said["coupled"], "BetaELBO", 2, "processes", "batch_size")
        assert_says(said["by place"], "AutoNormal", "accumulate=1")
        assert_says(said["small"], "batch_size", 1, 2, "processes")
        assert_says(said["size"], "size", None, "processes")


def test_a_wish_to_stop_is_known_to_all_after_the_next_step(found):
    for rank in found:
        assert rank["stopped"] == [(done, done > 3) for done in range(1, 8)]


def test_a_run_goes_on_within_an_epoch_bit_for_bit(found):
    assert all(rank["interrupted"] for rank in found)


def test_torchs_own_module_for_processes_has_the_same_gradients(found):
    for rank in found:
        torch.testing.assert_close(rank["torch"], rank["steps"], rtol=0, atol=1e-12)
    torch.testing.assert_close(found[0]["steps"], together.by_steps(), rtol=0, atol=1e-12)


def test_shares_are_contiguous_and_differ_by_one_at_most():
    group = Processes()
    for number in (1, 2, 3, 5):
        group.number = number
        for rows in range(12):
            shares = []
            for group.rank in range(number):
                shares.append(range(rows)[group.share(rows)])
            assert [row for share in shares for row in share] == list(range(rows))
            assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_process_alone_shares_with_nobody():
    group, value = Processes(), torch.ones(2)
    assert (group.rank, group.number) == (0, 1)
    assert group.share(5) == slice(0, 5)
    assert group.gather("it") == ["it"]
    assert group.any(True)
    assert not group.any(False)
    assert group.sum(value) is value
