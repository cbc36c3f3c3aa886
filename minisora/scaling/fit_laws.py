"""The law of a ladder: results.jsonl in, law.json out.

law.json holds the laws with their intervals, the error on the largest budget when it is held out, what the law says
of Sora's budget with how far that is beyond the data, and the published exponents beside ours.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from rich.console import Group

from minisora.errors import UserError
from minisora.report.ladder_law import (
    BestSize,
    BestSizes,
    Ends,
    HeldOut,
    LadderAnswer,
    LadderLaw,
    LossNoise,
    Optimum,
    PublishedSize,
    asked_budgets,
    asked_params,
)
from minisora.scaling.law import (
    Array,
    Law,
    find_optimum,
    fit_budget_law,
    fit_loss_law,
    fit_size_law,
    intervals,
)
from minisora.scaling.results import RunRow, check_rows, read_rows
from minisora.screen import Table

# Budgets whose best size lies between the sizes tried, for a law of the best size.
_MIN_OPTIMA = 3


@dataclass(frozen=True)
class PublishedLaw:
    """N* = k C^a, with C in FLOPs of 6 N D and N in parameters.

    Args:
        name, source: of the paper.
        of: what its models make. A law of text says little of video.
        k, a: of the law.
        largest_flops: of the runs that it was fitted to, where the paper says, or
        largest_params: of those runs, which the law itself turns into FLOPs.
        loss_exponent: of L or L - E in C, where it is given.
    """

    name: str
    source: str
    of: Literal["images", "video", "text"]
    k: float
    a: float
    largest_flops: float | None = None
    largest_params: float | None = None
    loss_exponent: float | None = None

    def params(self, flops: float) -> float:
        """The best size at a budget."""
        return float(self.k * flops**self.a)

    def record(self) -> PublishedSize:
        """Its entry of law.json."""
        sizes = [self.params(flops) for flops in asked_budgets()]
        decades = _decades(self.fitted_until)
        return PublishedSize(self.name, self.source, self.of, self.a, self.loss_exponent, sizes, decades)

    @property
    def fitted_until(self) -> float:
        """FLOPs of the largest run that it was fitted to."""
        if self.largest_flops is not None:
            return self.largest_flops
        assert self.largest_params is not None
        return float((self.largest_params / self.k) ** (1 / self.a))


PUBLISHED = (
    PublishedLaw("Liang et al. 2024, images", "arXiv 2410.08184", "images", 9e-4, 0.5681, 6e18, None, 0.0273),
    PublishedLaw("Yin et al. 2024, video", "arXiv 2411.17470", "video", 1.5787, 0.4146, None, 0.26e9),
    # Given in 1e9 parameters and PFLOPs (1e15).
    PublishedLaw("HunyuanVideo, images", "arXiv 2412.03603", "images",
                 5.48e-4 * 1e9 / 1e15**0.5634, 0.5634, None, 6.6e9),
    PublishedLaw("HunyuanVideo, video", "arXiv 2412.03603", "video",
                 0.0189 * 1e9 / 1e15**0.3618, 0.3618, None, 6.6e9),
    # C = 6 N D with D = 20 N gives N = (C / 120)^0.5; isoFLOP budgets of 6e18 to 3e21.
    PublishedLaw("Chinchilla, text", "arXiv 2203.15556", "text", 120**-0.5, 0.5, 3e21),
)  # fmt: skip


@dataclass(frozen=True)
class _Points:
    """The ladder's runs, one of each size and budget: seeds are averaged, so that no budget has more tries."""

    times: Array
    flops: Array
    params: Array
    tokens: Array
    losses: Array
    # Relative standard deviation of a loss over seeds.
    seed_noise: float | None

    @classmethod
    def of(cls, rows: Sequence[RunRow], tokens_per_clip: int) -> "_Points":
        alike: dict[tuple[float, int], list[RunRow]] = defaultdict(list)
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

    def where(self, mask: Array) -> "_Points":
        return _Points(
            self.times[mask],
            self.flops[mask],
            self.params[mask],
            self.tokens[mask],
            self.losses[mask],
            self.seed_noise,
        )

    def optima(self, losses: Array) -> list[Optimum]:
        """The best size of every budget, cheapest first."""
        optima = []
        for times in np.unique(self.times):
            here = self.times == times
            flops = float(np.median(self.flops[here]))
            if here.sum() >= 3:
                optima.append(find_optimum(flops, self.params[here], losses[here]))
            else:
                # Nothing lies between two sizes.
                best = int(losses[here].argmin())
                optima.append(
                    Optimum(flops, float(self.params[here][best]), float(losses[here][best]), inside=False)
                )
        return optima


def fit_ladder(rows: Sequence[RunRow], tokens_per_clip: int) -> LadderLaw:
    """All laws of the isoFLOP runs of a ladder.

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
        return {**law.constants, "exponent": exponent, **dict(zip(_param_names(), best, strict=True))}

    def size_constants(losses: Array) -> dict[str, float]:
        law = _size_law(points.optima(losses))
        if law is None:
            raise UserError("too few budgets have their best size inside")
        return {**law.constants, **dict(zip(_param_names(), _sizes(law), strict=True))}

    of_budget = intervals(budget_constants, points.losses, noise)
    of_loss = intervals(loss_constants, points.losses, noise)
    budget_law = replace(budget_law, intervals=of_budget)
    loss_law = replace(loss_law, intervals={k: of_loss[k] for k in loss_law.constants})
    exponent, *params = _best_sizes(loss_law, per_pair)
    parabolas = None
    if size_law is not None:
        of_size = intervals(size_constants, points.losses, noise)
        size_law = replace(size_law, intervals={k: of_size[k] for k in size_law.constants})
        a = size_law.constants["a"]
        parabolas = _best_size(a, _sizes(size_law), of_size, "a", size_law.determined)
    return LadderLaw(
        runs=len(points.losses),
        tokens_per_clip=tokens_per_clip,
        budgets=[optimum.flops for optimum in optima],
        noise=LossNoise(noise, "seeds" if points.seed_noise else "what L(N, D) leaves"),
        optima=optima,
        budget_law=budget_law.record(),
        loss_law=loss_law.record(),
        size_law=None if size_law is None else size_law.record(),
        held_out=_held_out(points, budgets),
        optimal=BestSizes(
            flops=list(asked_budgets()),
            reports_params=asked_params(),
            decades_beyond_data=_decades(float(points.flops.max())),
            flops_per_parameter_and_token=per_pair,
            loss_law=_best_size(exponent, params, of_loss, "exponent", loss_law.determined),
            parabolas=parabolas,
            published=[law.record() for law in PUBLISHED],
        ),
    )


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


def _held_out(points: _Points, budgets: Array) -> HeldOut:
    """The laws fitted without the largest budget, and how wrong they are there."""
    last = points.times == budgets[-1]
    others, largest = points.where(~last), points.where(last)
    (best,) = largest.optima(largest.losses)
    predicted = float(_budget_law(others.optima(others.losses)).loss(best.flops))
    law = fit_loss_law(others.params, others.tokens, others.losses)
    return HeldOut(
        flops=best.flops,
        loss=best.loss,
        inside=best.inside,
        budgets_fitted=len(budgets) - 1,
        predicted=predicted,
        error=predicted / best.loss - 1,
        loss_law_errors=(law.loss_of(largest.params, largest.tokens) / largest.losses - 1).tolist(),
    )


def _best_sizes(law: Law, per_pair: float) -> tuple[float, ...]:
    """Exponent of N* ~ C^a, and N* at Sora's budgets, where L(N, C / (per_pair N)) is least (Chinchilla, eq. 4)."""
    k = law.constants
    both = k["alpha"] + k["beta"]
    exponent = k["beta"] / both
    log_factor = math.log(k["alpha"] * k["A"] / (k["beta"] * k["B"])) / both
    return exponent, *(_exp(log_factor + exponent * math.log(flops / per_pair)) for flops in asked_budgets())


def _sizes(law: Law) -> list[float]:
    """k C^a at Sora's budgets."""
    k, a = law.constants["k"], law.constants["a"]
    return [_exp(math.log(k) + a * math.log(flops)) for flops in asked_budgets()]


def _exp(log: float) -> float:
    if abs(log) > 600:
        raise UserError("the law gives no finite best size: its exponents are not determined by these runs")
    return math.exp(log)


def _decades(flops: float) -> list[float]:
    """From there to Sora's budgets."""
    return [math.log10(budget / flops) for budget in asked_budgets()]


def _param_names() -> list[str]:
    """What the best sizes at the budgets asked about are called among a law's constants."""
    return [f"params_{place}" for place in range(len(asked_budgets()))]


def _best_size(
    exponent: float, params: Sequence[float], ends: dict[str, Ends], exponent_name: str, determined: bool
) -> BestSize:
    of_params = [ends[name] for name in _param_names()]
    return BestSize(exponent, ends[exponent_name], list(params), of_params, determined)


def fit_file(results: Path, tokens_per_clip: int, out: Path) -> LadderLaw:
    """Fit a results file and write law.json.

    Raises:
        UserError: there is no such file, too little in it, or `out` cannot be written.
    """
    rows = read_rows(results)
    if not rows:
        raise UserError(f"no results in {results}: run 'minisora scale run' first")
    check_rows(results, rows)
    law = fit_ladder(rows, tokens_per_clip)
    law.write(out)
    return law


# For the screen.


def fit_tables(ladder: LadderLaw) -> Group:
    """The laws and what they say, for a terminal."""
    laws = Table(title=f"laws fitted to {ladder.runs} runs", title_justify="left")
    for head in ("law", "constant", "value", "90 % interval"):
        laws.add_column(head, justify="left" if head == "law" else "right")
    for law in (ladder.budget_law, ladder.loss_law, ladder.size_law):
        for place, (constant, value) in enumerate(law.constants.items() if law else ()):
            assert law is not None
            low, high = law.intervals[constant]
            formula = law.formula + ("" if law.determined else " (NOT DETERMINED by these runs)")
            laws.add_row(formula if place == 0 else "", constant, f"{value:.4g}", f"{low:.4g} to {high:.4g}")
    held, edges = ladder.held_out, [optimum for optimum in ladder.optima if not optimum.inside]
    worst = max(map(abs, held.loss_law_errors))
    laws.caption = (
        f"largest budget ({held.flops:.3g} FLOPs) held out: L(C) of {held.budgets_fitted} budgets predicts "
        f"{held.predicted:.4f}, measured {held.loss:.4f}, error {held.error:+.2%}; L(N, D) is at most "
        f"{worst:.2%} off there. Noise of a loss {ladder.noise.relative:.2%} ({ladder.noise.source})"
    )
    optima = Table(title="the best size of each budget", title_justify="left")
    for head in ("FLOPs", "parameters", "loss", ""):
        optima.add_column(head, justify="left" if not head else "right")
    for optimum in ladder.optima:
        note = "" if optimum.inside else "AT THE EDGE of the sizes tried: the true one lies beyond"
        optima.add_row(f"{optimum.flops:.2e}", f"{optimum.params:.3g}", f"{optimum.loss:.4f}", note)
    if edges and ladder.size_law is None:
        inside = len(ladder.optima) - len(edges)
        optima.caption = f"only {inside} of {len(ladder.optima)} inside: no law of the best size"
    return Group(laws, optima, LadderAnswer.of(ladder, "law.json").table())
