"""The laws: constants that are known come back within their own intervals; what cannot be fitted is refused."""

import numpy as np
import pytest

from minisora.errors import UserError
from minisora.scaling.law import bootstrap, fit_budget_law, fit_loss_law, fit_parabola, fit_size_law

E, A, ALPHA, B, BETA = 0.21, 40.0, 0.34, 90.0, 0.28


def runs(noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """FLOPs, parameters, tokens and losses of a ladder of 5 budgets x 6 sizes under a known law."""
    generator = np.random.default_rng(seed)
    budgets, sizes = 2e12 * np.array([1, 2, 4, 8, 32]), np.geomspace(3e5, 1e7, 6)
    flops, params = (grid.ravel() for grid in np.meshgrid(budgets, sizes, indexing="ij"))
    tokens = flops / (6 * params)
    losses = (E + A * params**-ALPHA + B * tokens**-BETA) * np.exp(
        noise * generator.standard_normal(len(flops))
    )
    return flops, params, tokens, losses


def test_exact_losses_give_the_exact_law() -> None:
    _, params, tokens, losses = runs(noise=0)
    law = fit_loss_law(params, tokens, losses)
    assert law.error < 2e-3
    assert law.constants["alpha"] == pytest.approx(ALPHA, rel=0.03)
    assert law.constants["beta"] == pytest.approx(BETA, rel=0.03)
    assert law.constants["E"] == pytest.approx(E, rel=0.03)
    assert law.loss_of(1e6, 1e8) == pytest.approx(E + A * 1e6**-ALPHA + B * 1e8**-BETA, rel=2e-3)


def test_known_constants_lie_within_the_intervals_of_noisy_ladders() -> None:
    inside: list[bool] = []
    for seed in range(6):
        flops, params, tokens, losses = runs(noise=0.003, seed=seed)
        law = fit_loss_law(params, tokens, losses)
        groups = [np.flatnonzero(flops == budget).tolist() for budget in np.unique(flops)]
        intervals = bootstrap(
            lambda i: fit_loss_law(params[list(i)], tokens[list(i)], losses[list(i)], near=law).constants,  # noqa: B023
            groups,
            times=60,
        )
        for name, truth in (("E", E), ("alpha", ALPHA), ("beta", BETA)):
            low, high = intervals[name]
            inside.append(low < truth < high)
            assert high - low < truth  # an interval that says nothing would hold everything
    assert sum(inside) >= 0.8 * len(inside)  # of 90 % intervals


def test_the_budget_law_predicts_a_budget_that_it_has_not_seen() -> None:
    flops = 2e12 * np.array([1, 2, 4, 8, 32])
    losses = 0.2 + 1e3 * flops**-0.3
    law = fit_budget_law(flops[:-1], losses[:-1])
    assert law.loss(flops[-1]) == pytest.approx(losses[-1], rel=2e-3)
    assert law.constants["alpha"] == pytest.approx(0.3, rel=0.05)


def test_parabolas_find_the_best_size_and_its_exponent() -> None:
    flops, params, tokens, _ = runs(noise=0)
    best = []
    for budget in np.unique(flops):
        here = flops == budget
        optimum = 1e-2 * budget**0.55
        losses = 0.3 + 0.02 * np.log(params[here] / optimum) ** 2
        parabola = fit_parabola(budget, params[here], losses)
        assert parabola.params == pytest.approx(optimum, rel=1e-6)
        assert parabola.inside == (params[here].min() <= optimum <= params[here].max())
        best.append(parabola)
    law = fit_size_law([p.flops for p in best], [p.params for p in best])
    assert law.constants["a"] == pytest.approx(0.55)
    assert len(tokens) == 30


def test_an_exponent_at_the_edge_of_the_search_is_called_undetermined() -> None:
    flops = 2e12 * np.array([1, 2, 4, 8])
    assert fit_budget_law(flops, 0.2 + 1e3 * flops**-0.3).determined
    assert not fit_budget_law(flops, [0.5, 0.4999, 0.4998, 0.3]).determined


def test_what_cannot_be_fitted_is_refused() -> None:
    with pytest.raises(UserError, match="2 budgets are too few to fit: 3 at least"):
        fit_budget_law([1e12, 2e12], [0.5, 0.4])
    with pytest.raises(UserError, match="not finite and above 0"):
        fit_budget_law([1e12, 2e12, 4e12], [0.5, np.nan, 0.4])
    with pytest.raises(UserError, match="no minimum between the sizes"):
        fit_parabola(1e12, [1e5, 1e6, 1e7], [0.4, 0.6, 0.4])
