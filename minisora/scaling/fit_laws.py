"""The law of a ladder: results.jsonl in, law.json out.

law.json holds the laws with their intervals, the error on the largest budget when it is held out, what the law says
of Sora's budget with how far that is beyond the data, and the published exponents beside ours.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from minisora.errors import UserError
from minisora.files import write_json
from minisora.scaling.law import (
    Array,
    Law,
    Optimum,
    find_optimum,
    fit_budget_law,
    fit_loss_law,
    fit_size_law,
    intervals,
)
from minisora.scaling.published import PUBLISHED
from minisora.scaling.results import Row, check_rows, read_rows

SORA_PARAMS = 20e9  # the report's guess
# Budgets that the laws are asked about: a round one, and the report's own training, least and most data, which it
# gives in MACs (1.08e25, 2.7e25) and `minisora report --preset corrected` in FLOPs.
SORA_FLOPS = (1e25, 2.61e25, 6.53e25)
_PARAMS = tuple(f"params_{place}" for place in range(len(SORA_FLOPS)))
_MIN_OPTIMA = 3  # budgets whose best size lies between the sizes tried, for a law of the best size


@dataclass(frozen=True)
class _Points:
    """The ladder's runs, one of each size and budget: seeds are averaged, so that no budget has more tries."""

    times: Array
    flops: Array
    params: Array
    tokens: Array
    losses: Array
    seed_noise: float | None  # relative standard deviation of a loss over seeds

    @classmethod
    def of(cls, rows: Sequence[Row], tokens_per_clip: int) -> "_Points":
        alike: dict[tuple[float, int], list[Row]] = defaultdict(list)
        for row in rows:
            if row["axis"] == "isoflop":
                alike[row["times"], row["dial"]].append(row)
        columns = []
        for (times, _), same in sorted(alike.items()):
            first, loss = same[0], float(np.mean([row["loss"] for row in same]))
            tokens = first["samples"] * tokens_per_clip
            columns.append((times, first["flops"], first["params"], tokens, loss))
        spreads = [
            float(np.std(losses, ddof=1) / np.mean(losses))
            for same in alike.values()
            if len(losses := [row["loss"] for row in same]) > 1
        ]
        table = np.array(columns, float).reshape(-1, 5)
        noise = float(np.median(spreads)) if spreads else None
        return cls(table[:, 0], table[:, 1], table[:, 2], table[:, 3], table[:, 4], noise)

    def where(self, kept: Array) -> "_Points":
        return _Points(
            self.times[kept],
            self.flops[kept],
            self.params[kept],
            self.tokens[kept],
            self.losses[kept],
            self.seed_noise,
        )

    def optima(self, losses: Array) -> list[Optimum]:
        """The best size of every budget, cheapest first."""
        found = []
        for times in np.unique(self.times):
            here = self.times == times
            flops = float(np.median(self.flops[here]))
            if here.sum() >= 3:
                found.append(find_optimum(flops, self.params[here], losses[here]))
            else:  # nothing lies between two sizes
                best = int(losses[here].argmin())
                found.append(
                    Optimum(flops, float(self.params[here][best]), float(losses[here][best]), inside=False)
                )
        return found


def fit_ladder(rows: Sequence[Row], tokens_per_clip: int) -> dict[str, Any]:
    """All laws of the isoFLOP runs of a ladder, ready for JSON.

    Intervals come from the noise of the loss: its spread over seeds where runs were repeated, else what the loss law
    leaves unexplained.

    Args:
        rows: of results.jsonl; other axes are left out of the laws.
        tokens_per_clip: latent tokens, for D.

    Raises:
        UserError: too few budgets or sizes to fit.
    """
    points = _Points.of(rows, tokens_per_clip)
    budgets = np.unique(points.times)
    if len(budgets) < 4:
        raise UserError(f"{len(budgets)} budgets are too few: three to fit and one to hold out at least")
    # Compute of a run is c N D with c counted: about 4 here, since N holds modulations, which run once a clip.
    per_pair = float(np.median(points.flops / (points.params * points.tokens)))

    optima = points.optima(points.losses)
    budget_law = _budget_law(optima)
    loss_law = fit_loss_law(points.params, points.tokens, points.losses)
    size_law = _size_law(optima)
    noise = points.seed_noise or _unexplained(loss_law, points)

    def budget_constants(losses: Array) -> dict[str, float]:
        return _budget_law(points.optima(losses), near=budget_law).constants

    def loss_constants(losses: Array) -> dict[str, float]:
        law = fit_loss_law(points.params, points.tokens, losses, near=loss_law)
        exponent, *best = _best_sizes(law, per_pair)
        return {**law.constants, "exponent": exponent, **dict(zip(_PARAMS, best, strict=True))}

    def size_constants(losses: Array) -> dict[str, float]:
        law = _size_law(points.optima(losses))
        if law is None:
            raise UserError("too few budgets have their best size inside")
        return {**law.constants, **dict(zip(_PARAMS, _sizes(law), strict=True))}

    of_budget = intervals(budget_constants, points.losses, noise)
    of_loss = intervals(loss_constants, points.losses, noise)
    budget_law = replace(budget_law, intervals=of_budget)
    loss_law = replace(loss_law, intervals={k: of_loss[k] for k in loss_law.constants})
    exponent, *params = _best_sizes(loss_law, per_pair)
    answers: dict[str, Any] = {
        "loss_law": _answer(exponent, params, of_loss, "exponent", loss_law.determined)
    }
    if size_law is not None:
        of_size = intervals(size_constants, points.losses, noise)
        size_law = replace(size_law, intervals={k: of_size[k] for k in size_law.constants})
        answers["parabolas"] = _answer(
            size_law.constants["a"], _sizes(size_law), of_size, "a", size_law.determined
        )
    return {
        "runs": len(points.losses),
        "tokens_per_clip": tokens_per_clip,
        "budgets": [optimum.flops for optimum in optima],
        "noise": {"relative": noise, "from": "seeds" if points.seed_noise else "what L(N, D) leaves"},
        "optima": [vars(optimum) for optimum in optima],
        "budget_law": budget_law.to_dict(),
        "loss_law": loss_law.to_dict(),
        "size_law": None if size_law is None else size_law.to_dict(),
        "held_out": _held_out(points, budgets),
        "optimal": {
            "flops": list(SORA_FLOPS),
            "reports_params": SORA_PARAMS,
            "decades_beyond_data": _decades(float(points.flops.max())),
            "flops_per_parameter_and_token": per_pair,
            **answers,
            "published": [
                {
                    "name": each.name,
                    "source": each.source,
                    "of": each.of,
                    "exponent": each.a,
                    "loss_exponent": each.loss_exponent,
                    "params": [each.params(flops) for flops in SORA_FLOPS],
                    "decades_beyond_data": _decades(each.fitted_until),
                }
                for each in PUBLISHED
            ],
        },
    }


def _budget_law(optima: Sequence[Optimum], near: Law | None = None) -> Law:
    return fit_budget_law([o.flops for o in optima], [o.loss for o in optima], near=near)


def _size_law(optima: Sequence[Optimum]) -> Law | None:
    """N* = k C^a through the budgets whose best size lies inside; None for too few."""
    inside = [optimum for optimum in optima if optimum.inside]
    if len(inside) < _MIN_OPTIMA:
        return None
    return fit_size_law([o.flops for o in inside], [o.params for o in inside])


def _unexplained(law: Law, points: _Points) -> float:
    """Root mean square relative residual of L(N, D), for its five constants."""
    residual = np.log(law.loss_of(points.params, points.tokens) / points.losses)
    return float(np.sqrt((residual**2).sum() / max(1, len(residual) - len(law.constants))))


def _held_out(points: _Points, budgets: Array) -> dict[str, Any]:
    """The laws fitted without the largest budget, and how wrong they are there."""
    last = points.times == budgets[-1]
    kept, gone = points.where(~last), points.where(last)
    (largest,) = gone.optima(gone.losses)
    by_budget = float(_budget_law(kept.optima(kept.losses)).loss(largest.flops))
    law = fit_loss_law(kept.params, kept.tokens, kept.losses)
    return {
        "flops": largest.flops,
        "loss": largest.loss,
        "inside": largest.inside,
        "budgets_fitted": len(budgets) - 1,
        "predicted": by_budget,
        "error": by_budget / largest.loss - 1,
        "loss_law_errors": (law.loss_of(gone.params, gone.tokens) / gone.losses - 1).tolist(),
    }


def _best_sizes(law: Law, per_pair: float) -> tuple[float, ...]:
    """Exponent of N* ~ C^a, and N* at Sora's budgets, where L(N, C / (per_pair N)) is least (Chinchilla, eq. 4)."""
    k = law.constants
    both = k["alpha"] + k["beta"]
    exponent = k["beta"] / both
    log_factor = math.log(k["alpha"] * k["A"] / (k["beta"] * k["B"])) / both
    return exponent, *(_exp(log_factor + exponent * math.log(flops / per_pair)) for flops in SORA_FLOPS)


def _sizes(law: Law) -> list[float]:
    """k C^a at Sora's budgets."""
    k, a = law.constants["k"], law.constants["a"]
    return [_exp(math.log(k) + a * math.log(flops)) for flops in SORA_FLOPS]


def _exp(log: float) -> float:
    if abs(log) > 600:
        raise UserError("the law gives no finite best size: its exponents are not determined by these runs")
    return math.exp(log)


def _decades(flops: float) -> list[float]:
    """From there to Sora's budgets."""
    return [math.log10(budget / flops) for budget in SORA_FLOPS]


def _answer(
    exponent: float,
    params: Sequence[float],
    intervals: dict[str, tuple[float, float]],
    exponent_name: str,
    determined: bool,
) -> dict[str, Any]:
    return {
        "exponent": exponent,
        "exponent_interval": list(intervals[exponent_name]),
        "params": list(params),
        "params_intervals": [list(intervals[name]) for name in _PARAMS],
        "determined": determined,
    }


def fit_file(results: Path, tokens_per_clip: int, out: Path) -> dict[str, Any]:
    """Fit a results file and write law.json.

    Raises:
        UserError: there is no such file, too little in it, or `out` cannot be written.
    """
    rows = read_rows(results)
    if not rows:
        raise UserError(f"no results in {results}: run 'minisora scale run' first")
    check_rows(results, rows)
    found = fit_ladder(rows, tokens_per_clip)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, found)
    return found
