"""The ladder as a plan: from one YAML file to every run's size, batch, learning rates, steps and counted FLOPs.

One dial sets a model's size. At dial d (the toy's DiT is d = 8):

    width          16 d
    heads          d            heads stay 16 channels wide
    depth          2 + d / 2    rounded down
    AdamW's lr     3e-3 * 8 / d      embeddings and head, as 1 / width (mu-P, Yang et al. 2022, arXiv 2203.03466)
    Muon's lr      0.02         its steps are orthogonal matrices, whatever their width

and a budget C sets the batch: 16 (C / base)^(1/3), to the nearest multiple of 8, between 8 and 64, so that longer
runs have both more steps and larger batches (McCandlish et al. 2018, arXiv 1812.06162, for why). Steps are what is
left: C over the counted FLOPs of a step. Compute is the DiT's alone, counted; text encoder and VAE stand beside it.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from minisora.config import Config, load
from minisora.config_files import config_folder, read_yaml
from minisora.errors import UserError
from minisora.flops.count_torch import count_training
from minisora.flops.device import built_on
from minisora.flops.passes import dit_pass, text_pass
from minisora.limits import seed_after
from minisora.models.build import build_dit, build_text_encoder, latent_grid
from minisora.models.clip_grid import token_grid
from minisora.section import PositiveInt, Section

_BATCH, _STEP, _LEAST, _MOST = 16, 8, 8, 64
_MIN_STEPS = 10
_LR, _MUON_LR, _TOY_DIAL = 3e-3, 0.02, 8


class BudgetConfig(Section):
    """One budget: so many times the base, spent once on every size."""

    times: Annotated[float, Field(gt=0)]
    dials: tuple[PositiveInt, ...]
    # Further seeds repeat every size, for the noise.
    seeds: PositiveInt = 1


class RepetitionConfig(Section):
    """The same compute on less data, seen more often."""

    times: Annotated[float, Field(gt=0)]
    dial: PositiveInt
    epochs: tuple[Annotated[float, Field(ge=1)], ...]


class RateConfig(Section):
    """The learning rates times a factor: does the rule carry over from size to size?"""

    times: Annotated[float, Field(gt=0)]
    dials: tuple[PositiveInt, ...]
    factors: tuple[Annotated[float, Field(gt=0)], ...]


class LadderConfig(Section):
    """A ladder file."""

    # What all runs share.
    config: str = "toy"
    # Overrides of it.
    set: tuple[str, ...] = ()
    base_flops: Annotated[float, Field(gt=0)]
    budgets: tuple[BudgetConfig, ...]
    # Budgets of the figure.
    shown: tuple[float, ...] = (1, 4, 32)
    repetition: RepetitionConfig | None = None
    rates: RateConfig | None = None
    # Judged after each run.
    prompts: str = "72"
    shown_prompt: str = "a red circle moving left"
    # To predict times by, until runs have been timed.
    flops_per_second: Annotated[float, Field(gt=0)] = 6e10


@dataclass(frozen=True)
class Run:
    """One training of the ladder; everything about it follows from the ladder's file.

    Args:
        name: of its row and its folder.
        axis: "isoflop", "repetition" or "rate".
        dial: sets width, depth and heads of the DiT, and its learning rates.
        params: of the DiT.
        epochs: how often every clip is seen.
        times: the budget over the base.
        clips: in the training set.
        flops_per_step: counted, of the DiT over the batch; `text_flops_per_step` of the text encoder.
    """

    name: str
    axis: str
    dial: int
    width: int
    depth: int
    heads: int
    params: int
    batch: int
    lr: float
    muon_lr: float
    seed: int
    epochs: float
    times: float
    steps: int
    clips: int
    flops_per_step: int
    text_flops_per_step: int

    @property
    def flops(self) -> int:
        """Of the DiT over the run: counted FLOPs of a step, times steps."""
        return self.flops_per_step * self.steps

    @property
    def samples(self) -> int:
        """Clips seen, repeats included."""
        return self.batch * self.steps

    def to_dict(self) -> dict[str, Any]:
        """Its part of a row of results.jsonl."""
        return {**asdict(self), "flops": self.flops, "samples": self.samples}

    def config(self, shared: Config) -> Config:
        """The run's config: the shared one with its size, steps, rates and seed."""
        changes = {
            "seed": self.seed,
            "dit.width": self.width,
            "dit.depth": self.depth,
            "dit.heads": self.heads,
            "train_dit.batch_size": self.batch,
            "train_dit.optimizer": "muon",
            "train_dit.lr": self.lr,
            "train_dit.muon_lr": self.muon_lr,
            "train_dit.steps": self.steps,
            "train_dit.warmup_steps": min(50, self.steps // 4),
            "train_dit.sample_every": 0,
            "train_dit.validate_every": self.steps,
        }
        return shared.replace(**changes)


def read_ladder(path: str) -> LadderConfig:
    """A ladder file, or the name of a shipped one such as "cpu".

    Raises:
        UserError: it is missing or wrong; the message names the key.
    """
    file = Path(path)
    shipped = config_folder() / "ladder"
    if not file.is_file():
        file = shipped / f"{path}.yaml"
    if not file.is_file():
        names = ", ".join(sorted(each.stem for each in shipped.glob("*.yaml")))
        raise UserError(f"ladder '{path}' not found; shipped ladders: {names}")
    try:
        return LadderConfig.model_validate(read_yaml(file))
    except ValidationError as error:
        fault = error.errors()[0]
        key = ".".join(str(part) for part in fault["loc"])
        raise UserError(f"{file}: '{key}': {fault['msg']}") from error


def shared_config(ladder: LadderConfig) -> Config:
    """What all runs share: the VAE, the clips, and the noise of the validation, which no run's seed moves."""
    config = load(ladder.config, ladder.set)
    if config.data.validation_seed is None:
        config = config.replace(**{"data.validation_seed": seed_after(config.seed, 1)})
    return config


def plan(ladder: LadderConfig) -> list[Run]:
    """Every run of the ladder, cheapest budget first and the smaller of two models first.

    Raises:
        UserError: a budget is too small for a size, two runs are the same, or the shared config is wrong.
    """
    runs: list[Run] = []
    for budget in ladder.budgets:
        for dial in budget.dials:
            run = _run(ladder, dial, budget.times)
            runs += [
                replace(run, seed=seed_after(run.seed, k), name=run.name + (f"-seed{k}" if k else ""))
                for k in range(budget.seeds)
            ]
    if ladder.rates is not None:
        for dial in ladder.rates.dials:
            run = _run(ladder, dial, ladder.rates.times)
            runs += [
                replace(
                    run,
                    axis="rate",
                    name=f"{run.name}-lr{factor:g}",
                    lr=run.lr * factor,
                    muon_lr=run.muon_lr * factor,
                )
                for factor in ladder.rates.factors
                # That is the isoFLOP run itself.
                if factor != 1
            ]
    if ladder.repetition is not None:
        run = _run(ladder, ladder.repetition.dial, ladder.repetition.times)
        runs += [
            replace(
                run,
                axis="repetition",
                name=f"{run.name}-x{epochs:g}",
                epochs=epochs,
                clips=max(run.batch, round(run.samples / epochs)),
            )
            for epochs in ladder.repetition.epochs
            if epochs != 1
        ]
    names = [run.name for run in runs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"the ladder has run {twice} twice: take one of them out")
    return sorted(runs, key=lambda run: (run.times, run.dial, run.name))


def shard(runs: Iterable[Run], text: str) -> list[Run]:
    """Every n-th run from the i-th, for "i/n" such as "1/4"; raises UserError where it is not that."""
    first, _, count = text.partition("/")
    if not re.fullmatch("[0-9]{1,9}/[0-9]{1,9}", text) or not 1 <= int(first) <= int(count):
        raise UserError(f"--shard '{text}' must be i/n with 1 <= i <= n, such as 1/4")
    return list(runs)[int(first) - 1 :: int(count)]


def _run(ladder: LadderConfig, dial: int, times: float) -> Run:
    """The isoFLOP run at a size and a budget."""
    width, depth, heads = 16 * dial, 2 + dial // 2, dial
    batch = _batch(times)
    shared = shared_config(ladder)
    params, dit, text = _count(ladder.config, ladder.set, width, depth, heads)
    steps = round(times * ladder.base_flops / (dit * batch))
    if steps < _MIN_STEPS:
        least = _MIN_STEPS * dit * batch
        raise UserError(
            f"dial {dial} takes {dit * batch:.3g} FLOPs a step, so {times:g} times the base are {steps} steps: "
            f"leave the dial out there, or set base_flops to {least / times:.3g} or more"
        )
    return Run(
        name=f"d{dial}-c{times:g}",
        axis="isoflop",
        dial=dial,
        width=width,
        depth=depth,
        heads=heads,
        params=params,
        batch=batch,
        lr=_LR * _TOY_DIAL / dial,
        muon_lr=_MUON_LR,
        seed=shared.seed,
        epochs=1.0,
        times=times,
        steps=steps,
        clips=batch * steps,
        flops_per_step=dit * batch,
        text_flops_per_step=text * batch,
    )


def _batch(times: float) -> int:
    wanted = _BATCH * times ** (1 / 3)
    return min(_MOST, max(_LEAST, _STEP * round(wanted / _STEP)))


def tokens_per_clip(config: Config) -> int:
    """Latent tokens of one clip, the D of a run per clip seen."""
    return math.prod(token_grid(latent_grid(config), config.dit.patch))


@cache
def _count(
    config: str, overrides: tuple[str, ...], width: int, depth: int, heads: int
) -> tuple[int, int, int]:
    """Parameters of a DiT, and FLOPs of a training step on one clip: of the DiT, and of the text encoder."""
    sizes = {"dit.width": width, "dit.depth": depth, "dit.heads": heads}
    resolved = load(config, overrides).replace(**sizes)
    with built_on("meta"):
        text = build_text_encoder(resolved, ["a"])
        dit = build_dit(resolved, text.width)
        denoiser = dit_pass(resolved, dit, latent_grid(resolved), text_width=text.width, text_grad=True)
        encoder = text_pass(resolved, text)
    flops = [count_training(each).model_flops for each in (denoiser, encoder)]
    return sum(p.numel() for p in dit.parameters()), flops[0], flops[1]
