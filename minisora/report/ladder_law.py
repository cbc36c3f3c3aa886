"""law.json of a scaling ladder, and what it says of the report's size.

`minisora scale fit` writes a `LadderLaw`, `minisora report --law` and the ladder's figures read it. The report guesses
20e9 parameters for its training. A law of the best size N* ~ C^a answers that, from runs a dozen decades smaller: the
distance of the extrapolation stands beside every number, and a law whose exponents the runs do not determine says
nothing at all. No torch, as all of the report.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from minisora.errors import UserError
from minisora.files import read_json, write_json
from minisora.report.assumptions import shipped
from minisora.screen import Table

INTERVALS = (
    "In brackets: 90 % intervals from the noise of the losses alone; the form of the law is taken as given. The "
    "published laws count 6 N D, which leaves out what attention costs beyond its weights."
)
# FLOPs; asked about beside the report's own.
ROUND_BUDGET = 1e25
Ends = tuple[float, float]


# law.json. The names are those on disk.


@dataclass(frozen=True)
class FittedLaw:
    """A law of the loss or of the best size: constants by name, their 90 % intervals, largest relative error."""

    formula: str
    constants: dict[str, float]
    intervals: dict[str, Ends]
    error: float
    determined: bool


@dataclass(frozen=True)
class Optimum:
    """The least loss at one budget in FLOPs: of a parabola in log N, or of the best run where that is at the edge.

    `inside`: between the sizes tried; else the true optimum lies beyond them.
    """

    flops: float
    params: float
    loss: float
    inside: bool


@dataclass(frozen=True)
class LossNoise:
    """Relative standard deviation of a loss, and what it was taken from."""

    relative: float
    source: Annotated[str, Field(alias="from")]


@dataclass(frozen=True)
class HeldOut:
    """The largest budget in FLOPs, and what the laws of the others predict there; errors are relative."""

    flops: float
    loss: float
    inside: bool
    budgets_fitted: int
    predicted: float
    error: float
    loss_law_errors: list[float]


@dataclass(frozen=True)
class BestSize:
    """N* ~ C^exponent, and N* in parameters at each budget asked about, with 90 % intervals."""

    exponent: float
    exponent_interval: Ends
    params: list[float]
    params_intervals: list[Ends]
    determined: bool


@dataclass(frozen=True)
class PublishedSize:
    """The same by a published law; `loss_exponent` where it gives one of the loss in C."""

    name: str
    source: str
    of: Literal["images", "video", "text"]
    exponent: float
    loss_exponent: float | None
    params: list[float]
    decades_beyond_data: list[float]


@dataclass(frozen=True, kw_only=True)
class BestSizes:
    """Best sizes at the budgets asked about, `flops`, and the decades from the largest run to each."""

    flops: list[float]
    reports_params: float
    decades_beyond_data: list[float]
    flops_per_parameter_and_token: float
    loss_law: BestSize
    parabolas: BestSize | None = None
    published: list[PublishedSize]


@dataclass(frozen=True)
class LadderLaw:
    """law.json: the laws of a ladder's isoFLOP runs; no `size_law` where too few budgets have their best inside."""

    runs: int
    tokens_per_clip: int
    budgets: list[float]
    noise: LossNoise
    optima: list[Optimum]
    budget_law: FittedLaw
    loss_law: FittedLaw
    size_law: FittedLaw | None
    held_out: HeldOut
    optimal: BestSizes

    def to_dict(self) -> dict[str, Any]:
        """As it is on disk, where a law of the best size that could not be fitted has no answer."""
        tree: dict[str, Any] = _LAW.dump_python(self, mode="json", by_alias=True)
        if self.optimal.parabolas is None:
            del tree["optimal"]["parabolas"]
        return tree

    def write(self, path: Path) -> None:
        """Write law.json, whole, making its folder if need be."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, self.to_dict())


_LAW: TypeAdapter[LadderLaw] = TypeAdapter(LadderLaw)


def asked_params() -> float:
    """The report's own size."""
    value = shipped("corrected").entries["sora.params"].value
    assert isinstance(value, float)
    return value


def asked_budgets() -> tuple[float, ...]:
    """FLOPs that the laws are asked about: a round number, then the report's training, least and most data.

    The report prints MACs (1.08e25, 2.7e25); the corrected preset counts two FLOPs each. Three digits.
    """
    results = shipped("corrected").best
    ends = (results[f"sora_training_compute_{end}"] for end in ("low", "high"))
    return ROUND_BUDGET, *(float(f"{end:.3g}") for end in ends)


# The report's answer.


@dataclass(frozen=True)
class SizeLaw:
    """One law's best sizes in parameters at the budgets asked about; of a published law, what its models make."""

    law: str
    own: bool
    of: str | None
    exponent: float
    exponent_interval: Ends | None
    params: list[float]
    params_intervals: list[Ends | None]
    decades_beyond_data: list[float]
    determined: bool


@dataclass(frozen=True)
class LadderAnswer:
    """What a ladder's law says of the report's size: the file's name, its content, and a row for each law."""

    file: str
    law: LadderLaw
    rows: list[SizeLaw]

    @classmethod
    def of(cls, law: LadderLaw, file: str) -> "LadderAnswer":
        """The answer of law.json."""
        best = law.optimal
        own = {"this ladder, L(N, D)": best.loss_law, "this ladder, isoFLOP parabolas": best.parabolas}
        rows = [
            SizeLaw(title, True, None, size.exponent, size.exponent_interval, size.params, [*size.params_intervals],
                    best.decades_beyond_data, size.determined)
            for title, size in own.items()
            if size is not None
        ]  # fmt: skip
        rows += [
            SizeLaw(f"{each.name} ({each.source})", False, each.of, each.exponent, None, each.params,
                    [None] * len(best.flops), each.decades_beyond_data, True)
            for each in best.published
        ]  # fmt: skip
        return cls(file, law, rows)

    def to_dict(self) -> dict[str, Any]:
        """`ladder_law` of report.json; of published laws alone `of`."""
        best, budget, held = self.law.optimal, self.law.budget_law, self.law.held_out
        rows = [
            {key: value for key, value in asdict(row).items() if key != "of" or value} for row in self.rows
        ]
        return {
            "file": self.file,
            "runs": self.law.runs,
            "flops": best.flops,
            "reports_params": best.reports_params,
            "decades_beyond_data": best.decades_beyond_data,
            "loss_exponent": {
                "value": budget.constants["alpha"],
                "interval": budget.intervals.get("alpha"),
                "determined": budget.determined,
            },
            "held_out": {"error": held.error, "inside": held.inside},
            "rows": rows,
            "verdict": self.verdict(),
            "intervals": INTERVALS,
        }

    def table(self) -> Table:
        """The rows and the verdict, for the screen."""
        table = Table(
            title="the best size for the report's training, by laws of scaling", title_justify="left"
        )
        budgets = [f"at {flops:.3g} FLOPs" for flops in self.law.optimal.flops]
        for column in ("law", "N ~ C^", *budgets, "decades beyond its data"):
            table.add_column(column, justify="left" if column == "law" else "right", overflow="fold")
        for row in self.rows:
            numbers = [f"{row.exponent:.2f}"]
            for params, ends in zip(row.params, row.params_intervals, strict=True):
                numbers.append(f"{params:.2g}" + (f" ({ends[0]:.1g} to {ends[1]:.1g})" if ends else ""))
            beyond = f"{row.decades_beyond_data[0]:.1f} to {row.decades_beyond_data[-1]:.1f}"
            unknown = ["not determined", *("-" for _ in budgets)]
            table.add_row(row.law, *(numbers if row.determined else unknown), beyond)
        table.caption = f"{self.verdict()} {INTERVALS}"
        return table

    def verdict(self) -> str:
        """Whether the report's size is the best for its training, with the distances in it.

        Laws of images and video count, with the whole of their intervals; one of text does not.
        """
        best = self.law.optimal
        laws = [row for row in self.rows if row.determined and row.of != "text"]
        ends = [
            interval or (params, params)
            for row in laws
            for params, interval in list(zip(row.params, row.params_intervals, strict=True))[1:]
        ]
        smallest, largest, size = (
            min(low for low, _ in ends),
            max(high for _, high in ends),
            best.reports_params,
        )
        word = "below" if largest < size else "above" if smallest > size else "on both sides of"
        others = [row.decades_beyond_data[-1] for row in laws if not row.own]
        text = (
            f"For the report's training, {best.flops[1]:.2g} to {best.flops[-1]:.2g} FLOPs, laws of images and video "
            f"put the best size at {smallest:.2g} to {largest:.2g} parameters, {word} its {size:.0e}. "
            f"The largest runs behind the published ones lie up to {max(others):.1f} decades below that"
        )
        beyond = f"{best.decades_beyond_data[-1]:.1f} DECADES"
        if any(row.own for row in laws):
            return f"{text}; THIS LADDER ENDS {beyond} BELOW: no measurement supports its rows there."
        return f"{text}; none of them is this ladder's, which ends {beyond} BELOW AND DOES NOT DETERMINE A SIZE THERE."


def read_law(path: Path) -> LadderAnswer:
    """law.json of a ladder.

    Raises:
        UserError: it is missing, or no law.
    """
    try:
        law = _LAW.validate_python(read_json(path))
    except FileNotFoundError as error:
        raise UserError(
            f"no law at {path}: make one with minisora scale run, then minisora scale fit"
        ) from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{path} is not a law of a ladder: make one with minisora scale fit") from error
    return LadderAnswer.of(law, path.name)
