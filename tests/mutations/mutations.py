"""The faults: one line of the library each, and the files of tests that must fail with it."""

from typing import NamedTuple


class Mutation(NamedTuple):
    """One fault.

    Attributes:
        text: a part of one line, which stands once in the library.
        wrong: what is put in its place.
        tests: ends of the paths of the files that are run.
    """

    text: str
    wrong: str
    tests: tuple[str, ...]


def mutation(text: str, wrong: str, *tests: str) -> Mutation:
    return Mutation(text, wrong, tests)


MUTATIONS = (
    # densities and weights
    mutation("self.log_joint - self.log_proposal", "self.log_joint + self.log_proposal", "engine/test_weights.py"),
    mutation("(frame.full_size or frame.size) / frame.size", "1.0", "engine/test_weights.py"),
    mutation("max(-frame.dim for", "min(-frame.dim for", "engine/test_weights.py"),
    mutation('if not self.guide.nodes[name]["is_observed"]}', "}", "engine/test_proposal.py"),
    mutation("value.gather(0, place.expand", "value.gather(0, 0 * place.expand", "objectives/test_gradient_estimators.py"),
    mutation("numerator / denominator)", "2.0 * numerator / denominator)", "objectives/test_gradient_estimators.py"),
    mutation("torch.cat([rest.narrow(place, 0, 1), rest], place)", "value", "evaluation/test_coupling.py"),
    # bounds and gradient estimators
    mutation("- math.log(len(log_weights))) / power", "- 0.0) / power", "objectives/test_bounds.py"),
    mutation(
        "1 - self.power + self.power * normalized", "1 - self.power + normalized", "objectives/test_gradient_estimators.py"
    ),
    mutation(
        "(values.sum(0) - values) / max(1, self._groups - 1)", "values.mean(0)", "objectives/test_gradient_estimators.py"
    ),
    mutation("others.sum(0) / (number - 1)", "others.sum(0) / number", "objectives/test_gradient_estimators.py"),
    mutation("tail**self.tail_adaptive_beta", "tail**-self.tail_adaptive_beta", "objectives/test_gradient_estimators.py"),
    mutation("(1.0 - self.insomnia) * asleep", "self.insomnia * asleep", "objectives/test_gradient_estimators.py"),
    mutation(
        "self.beta * elbo + (1 - self.beta) * iwae", "self.beta * iwae + (1 - self.beta) * elbo", "objectives/test_bounds.py"
    ),
    mutation(
        "weights.log_proposal - joint, joint - marginals",
        "weights.log_proposal - joint, marginals - joint",
        "objectives/test_tcvae.py",
    ),
    mutation("kl.mean(0) < self.free_bits", "kl.mean(0) > self.free_bits", "objectives/test_beta_elbo.py"),
    mutation("/ (pairs.shape[-1] - 1)", "/ pairs.shape[-1]", "objectives/test_info_vae.py"),
    # estimates of log p(x)
    mutation("variance / (len(weights) - 1)", "variance / (len(weights) - 3)", "estimates/test_importance.py"),
    mutation("math.log(number / (number - 1))", "0.0", "estimates/test_importance.py"),
    mutation("int(3 * math.sqrt(draws))", "int(2 * math.sqrt(draws))", "estimates/test_k_hats.py"),
    mutation("(size * k + 5.0) / (size + 10.0)", "k", "estimates/test_k_hats.py"),
    mutation("(~np.isfinite(k_hat) & excused)", "np.isnan(k_hat)", "estimates/test_trust.py"),
    mutation("equal | (defensive & bounded)", "equal | bounded", "estimates/test_trust.py"),
    mutation(
        "(bad := ~estimate.trusted)", "(bad := estimate.k_hat > estimate.threshold)", "likelihood/test_discrete_latents.py"
    ),
    mutation("max(self.num_chains, FEWEST_CHAINS)", "self.num_chains", "annealing/test_annealed_likelihood.py"),
    mutation("factor**2 * distribution.cov_diag", "factor * distribution.cov_diag", "likelihood/test_defensive.py"),
    mutation("rows[torch.randperm(len(rows), device=rows.device)]", "rows.clone()", "likelihood/test_defensive.py"),
    mutation(
        "torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0",
        "torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 1.0",
        "likelihood/test_refine.py",
    ),
    mutation(
        "mean_and_error(above.log_p - below.log_p)",
        "mean_and_error(below.log_p - above.log_p)",
        "likelihood/test_compare.py",
    ),
    # distributions, likelihoods, priors, guides
    mutation("self.logits**4 / 2880", "self.logits**4 / 288", "likelihoods/test_likelihoods.py"),
    mutation(
        "(value - self.loc).square().sum(-1) / 2.0", "(value - self.loc).square().sum(-1)", "distributions/test_sphere.py"
    ),
    mutation("0.5 / (self.levels - 1)", "0.5 / self.levels", "likelihoods/test_likelihoods.py"),
    mutation("self.concentration / math.log(2.0)", "self.concentration", "likelihoods/test_likelihoods.py"),
    mutation("each.logsumexp(-1) - log(each.shape[-1])", "each.logsumexp(-1)", "priors/test_priors.py"),
    mutation(
        "_conditionals(self.network(z)[..., place, :, :]).sample()",
        "_conditionals(self.network(z)[..., 0, :, :]).sample()",
        "priors/test_priors.py",
    ),
    mutation("(scale / norm).square()", "(scale / norm)", "guides/test_ladder.py"),
    mutation("raw.tril(-1) / _LONGEST", "raw.triu(1) / _LONGEST", "guides/test_normals.py"),
    # data and files
    mutation("key=seed + (i << 64)", "key=seed + i", "data/test_binarize.py"),
    mutation("return (uniform < x).to(x.dtype)", "return (uniform < 0.5).to(x.dtype)", "data/test_binarize.py"),
    mutation(
        "np.concatenate([_shuffled(size, seed), size + np.arange(test)])",
        "_shuffled(size + test, seed)",
        "data/test_mnist.py",
    ),
    mutation("total > max(FREE, RATIO * size)", "total > 2**60", "data/test_strangers.py", "runs/test_strangers.py"),
    mutation("len(value) > LENGTH", "len(value) > 2**30", "untrusted/test_plain_yaml.py"),
    mutation("startswith(home + os.sep)", "startswith(home)", "runs/test_run.py", "runs/test_strangers.py"),
    # what everyone needs
    mutation("rank * each + min(self.rank, rest)", "rank * each", "training/test_processes.py"),
    mutation("index % number == rank", "index % number >= rank", "runtime/test_sharding.py", "evaluation/test_coupling.py"),
    mutation("seed_of(self.seed[index], 0)", "seed_of(self.seed[0], index)", "likelihood/test_log_likelihood.py"),
    mutation('exact = precision in ("highest", "bfloat16")', 'exact = precision == "highest"', "runtime/test_precision.py"),
    # recorded programs
    mutation("left + right + left * right", "left + right", "compiling/test_cpu_kernels.py"),
    mutation(
        "return torch.mm(left, right) - (-bias)", "return torch.mm(left, right) + (-bias)", "compiling/test_cpu_kernels.py"
    ),
    mutation(
        "            buffers[name] = value",
        "            del value",
        "compiling/test_backward.py",
        "compiling/test_as_written.py",
    ),
    # standardized rows, training, annealing
    mutation("self.unit * scale", "scale", "tests/test_standardize.py"),
    mutation(
        "(mean - self.origin) / self.unit",
        "mean - self.origin",
        "tests/test_standardize.py",
        "tests/test_sklearn_estimator.py",
    ),
    mutation(
        "get_ema_multi_avg_fn(decay)",
        "get_ema_multi_avg_fn(1.0 - decay)",
        "training/test_ema.py",
    ),
    mutation("counted.restore()", "pass", "training/test_accumulation.py"),
    mutation("(~finite).long() * data", "(~finite).long()", "training/test_nonfinite.py"),
    mutation(
        "momentum + (length if step + 1 < self.steps else length / 2.0)",
        "momentum + length",
        "annealing/test_kernels.py",
        "annealing/test_any_latent.py",
    ),
    mutation("torch.where(rows == columns, x, 0.0).sum(-1)", "0.0 * x.sum(-1)", "annealing/test_any_latent.py"),
    # log p(x) to a tolerance
    mutation("+ normals.log_det", "+ 0.0 * normals.log_det", "fitting/test_natural_gradient.py"),
    mutation("density + self._normals.log_det", "density", "fitting/test_fitted_densities.py"),
    mutation("~left & ~_met_once(mixtures, ends)", "~left", "fitting/test_modes.py"),
    mutation(
        "(elbos > elbos.amax(0) - NEGLIGIBLE) | torch.stack(self.converged)",
        "torch.ones_like(elbos, dtype=torch.bool)",
        "tolerance/test_controller.py",
    ),
    mutation(
        "yield partial(climb, CHAINS, Climb.look_for_modes, self._answers.doubt), _met",
        "pass",
        "tolerance/test_controller.py",
    ),
    mutation("(certain & self._ladder.guide_suffices)", "certain", "tolerance/test_hard_pairs.py"),
    mutation(
        "unflatten(0, (self.number, -1)).logsumexp(0)", "unflatten(0, (self.number, -1)).mean(0)", "test_discrete_latents.py"
    ),
    mutation('del paths["guide"]', "pass", "tolerance/test_ladder.py"),
    mutation("if not differs:", "if True:", "annealing/test_path.py"),
    mutation("1 : _rank(site) - site[RANK]].numel() > 1", "1:1].numel() > 1", "engine/test_particles.py"),
    mutation("self._seeds.others(left, time)", "self._seeds", "tests/test_sklearn_estimator.py"),
)
