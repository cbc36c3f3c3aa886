"""The laws: constants that are known come back within their own intervals; what cannot be fitted is refused."""

from dataclasses import replace

import numpy as np
import pytest

from minisora.errors import UserError
from minisora.scaling.law import Law, find_optimum, fit_budget_law, fit_loss_law, fit_size_law, intervals

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


@pytest.mark.slow
def test_known_constants_lie_within_the_intervals_of_noisy_ladders() -> None:
    inside: list[bool] = []
    for seed in range(6):
        _, params, tokens, losses = runs(noise=0.003, seed=seed)
        law = fit_loss_law(params, tokens, losses)
        found = intervals(
            lambda noisy: fit_loss_law(params, tokens, noisy, near=law).constants,  # noqa: B023
            losses,
            noise=0.003,
            times=60,
        )
        for name, truth in (("E", E), ("alpha", ALPHA), ("beta", BETA)):
            low, high = found[name]
            inside.append(low < truth < high)
            # An interval that says nothing would hold everything.
            assert high - low < truth
    assert sum(inside) >= 0.8 * len(inside)  # of 90 % intervals


@pytest.mark.slow
def test_the_interval_of_the_budget_law_covers_its_exponent_and_closes_without_noise() -> None:
    flops = 2e12 * np.array([1, 2, 4, 8, 32])
    exact = 0.2 + 1e3 * flops**-0.3
    covered = []
    for seed in range(10):
        noisy = exact * np.exp(0.002 * np.random.default_rng(seed).standard_normal(5))
        law = fit_budget_law(flops, noisy)
        found = intervals(
            lambda x: fit_budget_law(flops, x, near=law).constants,  # noqa: B023
            noisy,
            noise=0.002,
            times=60,
        )
        covered.append(found["alpha"][0] < 0.3 < found["alpha"][1])
    assert sum(covered) >= 8
    law = fit_budget_law(flops, exact)
    low, high = intervals(lambda x: fit_budget_law(flops, x, near=law).constants, exact, noise=0.0, times=3)[
        "alpha"
    ]
    assert high - low < 1e-6


def test_the_budget_law_predicts_a_budget_that_it_has_not_seen() -> None:
    flops = 2e12 * np.array([1, 2, 4, 8, 32])
    losses = 0.2 + 1e3 * flops**-0.3
    law = fit_budget_law(flops[:-1], losses[:-1])
    assert law.loss(flops[-1]) == pytest.approx(losses[-1], rel=2e-3)
    assert law.constants["alpha"] == pytest.approx(0.3, rel=0.05)


def test_parabolas_find_the_best_size_and_its_exponent() -> None:
    sizes = np.geomspace(3e5, 1e7, 6)
    best = []
    for budget in 2e12 * np.array([1, 2, 4, 8]):
        optimum = 0.2 * budget**0.55
        found = find_optimum(budget, sizes, 0.3 + 0.02 * np.log(sizes / optimum) ** 2)
        assert found.params == pytest.approx(optimum, rel=1e-6)
        assert found.loss == pytest.approx(0.3)
        assert found.inside
        best.append(found)
    law = fit_size_law([o.flops for o in best], [o.params for o in best])
    assert law.constants["a"] == pytest.approx(0.55)


def test_an_optimum_beyond_the_sizes_is_said_to_be_at_the_edge() -> None:
    falling = find_optimum(1e12, [1e5, 1e6, 1e7], [0.6, 0.5, 0.4])
    assert (falling.params, falling.loss, falling.inside) == (1e7, 0.4, False)
    assert not find_optimum(1e12, [1e5, 1e6, 1e7], [0.4, 0.6, 0.4]).inside  # opens downwards


def test_sizes_far_from_the_optimum_do_not_bend_its_parabola() -> None:
    sizes = np.geomspace(1e5, 1e7, 5)
    losses = 0.3 + 0.02 * np.log(sizes / 8e5) ** 2
    losses[-1] = 2.0  # hardly trained at all
    assert find_optimum(1e12, sizes, losses).params == pytest.approx(8e5, rel=1e-6)


BUDGETS = 2e12 * np.array([1, 2, 4, 8])


@pytest.mark.parametrize("last", [0.28, 0.3, 0.32, 0.35, 0.4, 0.499])
def test_a_cliff_after_a_plateau_determines_no_exponent(last: float) -> None:
    # Along alpha the loss is flat here: the search stops at 0.005 or anywhere near it, differently on other CPUs.
    law = fit_budget_law(BUDGETS, [0.5, 0.4999, 0.4998, last])
    assert law.flat == ("alpha",)
    assert not law.determined


def test_whether_an_exponent_is_determined_does_not_hang_on_where_the_search_stops() -> None:
    law = fit_budget_law(BUDGETS, [0.5, 0.4999, 0.4998, 0.3])
    for alpha in (0.00505, 0.005357, 0.01, 0.05, 0.3):
        assert not replace(law, constants={**law.constants, "alpha": alpha}).determined


@pytest.mark.parametrize("losses", [[0.3, 0.3, 0.3, 0.3], [0.9, 0.3, 0.3, 0.3], [0.3, 0.4, 0.5, 0.6]])
def test_losses_that_are_level_or_fall_at_once_or_rise_determine_no_exponent(losses: list[float]) -> None:
    assert not fit_budget_law(BUDGETS, losses).determined


@pytest.mark.parametrize("alpha", [0.03, 0.1, 0.3, 1.0, 2.0])
def test_an_exponent_that_the_losses_tell_is_determined(alpha: float) -> None:
    law = fit_budget_law(BUDGETS, 0.2 + 0.2 * (BUDGETS / BUDGETS[0]) ** -alpha)
    assert law.flat == ()
    assert law.determined
    assert law.constants["alpha"] == pytest.approx(alpha, rel=0.03)


def test_noise_of_the_size_of_the_bend_leaves_the_exponent_undetermined() -> None:
    exact = 0.2 + 0.2 * (BUDGETS / BUDGETS[0]) ** -0.3
    noisy = exact * np.exp([0.05, -0.05, -0.05, 0.05])
    assert fit_budget_law(BUDGETS, exact).determined
    assert not fit_budget_law(BUDGETS, noisy).determined


def test_each_exponent_of_size_and_data_is_told_for_itself() -> None:
    _, params, tokens, losses = runs(noise=0.003)
    assert fit_loss_law(params, tokens, losses).flat == ()
    # As if data did not count.
    assert fit_loss_law(params, tokens, E + A * params**-ALPHA).flat == ("beta",)


def test_a_wide_interval_is_not_determined() -> None:
    sure = Law("", {"alpha": 0.3}, 0.0, {"alpha": (0.25, 0.36)})
    assert sure.determined
    assert not replace(sure, intervals={"alpha": (0.1, 0.4)}).determined
    assert not replace(sure, flat=("alpha",)).determined


def test_what_cannot_be_fitted_is_refused() -> None:
    with pytest.raises(UserError, match="2 budgets are too few to fit: 3 at least"):
        fit_budget_law([1e12, 2e12], [0.5, 0.4])
    with pytest.raises(UserError, match="not finite and above 0"):
        fit_budget_law([1e12, 2e12, 4e12], [0.5, np.nan, 0.4])
    with pytest.raises(UserError, match="two runs of one size"):
        find_optimum(1e12, [1e5, 1e5, 1e7], [0.4, 0.6, 0.4])
    with pytest.raises(UserError, match="2 sizes at 1e\\+12 FLOPs are too few"):
        find_optimum(1e12, [1e5, 1e6], [0.4, 0.6])
