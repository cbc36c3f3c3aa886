"""`calibration.json`: a sweep of real passes, the laws fitted to it, and where and when it was taken.

No torch: a calibration made on a GPU (`minisora.flops.sweep`) is read on a laptop.

**Cost.** MACs of one sample = a N P_token + b A + c P_sample, by least squares on counted passes: P_token are
the weights that meet every one of the N tokens, P_sample those that run once (modulation, noise level), and
A = sum over blocks of N K D, with K the keys that a token sees. Arithmetic says a = 1, b = 2, c = 1; the fit
must find that out for itself. The popular law N P, with all parameters P and no attention, is fitted beside
it to show its error.

**Time.** Seconds of a call = overhead L + FLOPs_linear s_linear + FLOPs_attention s_attention + elements
s_element, none negative: fixed cost of L blocks, products, attention, and elementwise traffic (elements =
batch N D L).

Both minimise relative errors, so small and large points weigh the same, and both are tested on the largest
fifth of the points, which they did not see.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from rich.text import Text

from minisora.errors import UserError
from minisora.files import read_json, write_json
from minisora.flops.peaks import MeasuredPeak, Reached, Timing, Utilisation
from minisora.screen import Table

Array = NDArray[np.float64]
PassKind = Literal["forward", "train"]
Plain = TypeVar("Plain")

# Of the file.
FORMAT = 1
PASS_KINDS: tuple[PassKind, ...] = ("forward", "train")
# MACs of the largest pass that `minisora.flops.sweep` takes on a GPU: where a calibration there would reach.
LARGEST_CUDA_MACS = 145_970_662_932_480
# The share of the points that the laws do not see.
HELD_OUT = 0.2


@dataclass(frozen=True)
class SweepPoint:
    """What was measured at one shape.

    `attention_pairs` is the sum over blocks of N K D (tokens, keys seen, width); `token_params` are the
    weights of layers that run on every token, `sample_params` of those that run once per sample.
    """

    width: int
    depth: int
    latent_size: tuple[int, int, int]
    patch: tuple[int, int, int]
    attention: str
    batch: int
    tokens: int
    params: int
    token_params: int
    sample_params: int
    attention_pairs: int
    macs: int
    attention_macs: int
    forward_flops: int
    train_flops: int
    model_flops: int
    forward: Timing
    train: Timing | None


@dataclass(frozen=True)
class CostLaw:
    """A fitted law.

    `coefficients` by name; errors are relative: the largest on the points fitted, the largest and the median
    on those held out.
    """

    formula: str
    coefficients: dict[str, float]
    fitted_points: int
    held_out_points: int
    fit_error: float
    held_out_error: float
    held_out_median: float
    notes: list[str] = field(default_factory=list)


def split(points: Sequence[SweepPoint], share: float = HELD_OUT) -> tuple[list[int], list[int]]:
    """Indices to fit and to hold out: the largest `share` of the points by MACs, one at least."""
    order = sorted(range(len(points)), key=lambda i: points[i].macs * points[i].batch)
    cut = len(order) - max(1, round(share * len(order)))
    return order[:cut], order[cut:]


def _cost_features(point: SweepPoint) -> tuple[int, int, int]:
    return point.tokens * point.token_params, point.attention_pairs, point.sample_params


def fit_macs(points: Sequence[SweepPoint]) -> CostLaw:
    """Fit the cost law to counted MACs of one sample."""
    features = np.array([_cost_features(point) for point in points], float)
    target = np.array([p.macs for p in points], float)
    return _fit(
        "MACs = a N P_token + b sum_blocks(N K D) + c P_sample",
        ("a", "b", "c"),
        features,
        target,
        split(points),
    )


def fit_naive(points: Sequence[SweepPoint]) -> CostLaw:
    """Fit the popular law, every parameter meeting every token and no attention."""
    features = np.array([[p.tokens * p.params] for p in points], float)
    return _fit("MACs = a N P", ("a",), features, np.array([p.macs for p in points], float), split(points))


def fit_seconds(points: Sequence[SweepPoint], seconds: Sequence[float], passes: float = 1.0) -> CostLaw:
    """Fit the time law to seconds of a call.

    Args:
        points: measured points.
        seconds: of each, of one call over its whole batch.
        passes: FLOPs of the call over forward FLOPs, so that rates come out in FLOP/s (about 3 for training).
    """
    linear = [2 * passes * p.batch * (p.tokens * p.token_params + p.sample_params) for p in points]
    attention = [4 * passes * p.batch * p.attention_pairs for p in points]
    elements = [p.batch * p.tokens * p.width * p.depth for p in points]
    features = np.array([[p.depth for p in points], linear, attention, elements], float).T
    fit = _fit(
        "seconds = overhead L + FLOPs_linear s_linear + FLOPs_attention s_attention + elements s_element",
        ("overhead", "s_linear", "s_attention", "s_element"),
        features,
        np.array(seconds, float),
        split(points),
    )
    rates = [
        f"{name.removeprefix('s_')}: {1 / value / 1e9:,.1f} G/s"
        for name, value in fit.coefficients.items()
        if name.startswith("s_") and value > 0
    ]
    fit.notes.extend(rates)
    return fit


def _fit(
    formula: str,
    names: tuple[str, ...],
    features: Array,
    target: Array,
    parts: tuple[list[int], list[int]],
) -> CostLaw:
    """Least squares of relative errors with no negative coefficient (active set: drop the most negative)."""
    train, held = parts
    # Predicted over measured; its target is 1.
    scaled = features[train] / target[train][:, None]
    active = list(range(features.shape[1]))
    while True:
        norms = np.linalg.norm(scaled[:, active], axis=0)
        norms[norms == 0] = 1.0
        solution = np.linalg.lstsq(scaled[:, active] / norms, np.ones(len(train)), rcond=None)[0] / norms
        if solution.min() >= 0 or len(active) == 1:
            break
        active.pop(int(np.argmin(solution * norms)))
    coefficients = np.zeros(features.shape[1])
    coefficients[active] = solution
    errors = np.abs(features @ coefficients / target - 1)
    return CostLaw(
        formula,
        {name: float(value) for name, value in zip(names, coefficients, strict=True)},
        len(train),
        len(held),
        float(errors[train].max()),
        float(errors[held].max()),
        float(np.median(errors[held])),
    )


@dataclass(frozen=True)
class Calibration:
    """Measured points, fitted laws, peaks in FLOP/s.

    `peak_ways` is what each way to multiply reached (empty in files older than that), `path` the file that it was
    read from.
    """

    points: list[SweepPoint]
    mac_law: CostLaw
    naive_law: CostLaw
    forward_time_law: CostLaw
    train_time_law: CostLaw | None
    measured_peak: float
    datasheet_peak: float | None
    device: dict[str, Any]
    date: str
    peak_ways: dict[str, Reached] = field(default_factory=dict)
    path: Path | None = None

    @property
    def peak_words(self) -> str | None:
        """The way to multiply that reached the measured peak, where the file tells."""
        return MeasuredPeak(self.peak_ways).words if self.peak_ways else None

    @property
    def machine(self) -> str:
        """Name of the device and its number format."""
        return f"{self.device['name'] or self.device['type']}, {self.device['dtype']}"

    @property
    def features(self) -> Array:
        """What the cost law reads of every point, P x 3."""
        return np.array([_cost_features(point) for point in self.points], float)

    @property
    def macs(self) -> Array:
        """Counted at every point, of one sample."""
        return np.array([point.macs for point in self.points], float)

    @property
    def coefficients(self) -> Array:
        """Of the cost law: a, b, c."""
        return np.array([self.mac_law.coefficients[name] for name in "abc"], float)

    @property
    def train_over_forward(self) -> float:
        """FLOPs of a training step over a forward pass at the largest point, without what is computed twice."""
        largest = max(self.points, key=lambda point: point.macs)
        return largest.model_flops / largest.forward_flops

    @property
    def utilisation(self) -> tuple[float, float] | None:
        """Share of the datasheet peak at the largest point that was trained, (forward, train)."""
        timed = [point for point in self.points if point.train is not None]
        if not timed or not self.datasheet_peak:
            return None
        largest = max(timed, key=lambda point: point.macs)
        shares = [use.mfu_datasheet for kind in PASS_KINDS if (use := self.use(largest, kind))]
        forward, train = (share for share in shares if share is not None)
        return forward, train

    def predict(self, features: Sequence[float]) -> tuple[float, float]:
        """MACs by the cost law at these features, and its relative error there.

        The error is the largest change of the prediction when any one measured point is left out and the law
        is fitted again: what the fit itself is worth at that distance.
        """
        at = np.asarray(features, dtype=float)
        best = float(at @ self.coefficients)
        rows, target = self.features / self.macs[:, None], np.ones(len(self.points) - 1)
        others = [
            float(at @ np.linalg.lstsq(np.delete(rows, i, 0), target, rcond=None)[0])
            for i in range(len(rows))
        ]
        return best, max(abs(other / best - 1) for other in others)

    @property
    def largest_macs(self) -> float:
        """Of one sample, at the largest measured point."""
        return float(self.macs.max())

    def decades_beyond(self, macs: float) -> float:
        """How many powers of ten lie between the largest measured pass and this one."""
        return math.log10(macs / self.largest_macs)

    def best_mfu(self, kind: PassKind) -> float | None:
        """The largest share of the measured peak at any point; None if that kind of pass was not run."""
        uses = (self.use(point, kind) for point in self.points)
        return max((use.mfu_measured for use in uses if use is not None), default=None)

    def use(self, point: SweepPoint, kind: PassKind = "forward") -> Utilisation | None:
        """MFU at a point, or None if that was not run."""
        timing = point.forward if kind == "forward" else point.train
        flops = point.forward_flops if kind == "forward" else point.model_flops
        if timing is None:
            return None
        return Utilisation(flops, timing.median, self.datasheet_peak, self.measured_peak)

    def warnings(self) -> list[str]:
        """A line for every point whose MFU passes 100 %."""
        warnings = []
        for point in self.points:
            for kind in PASS_KINDS:
                use = self.use(point, kind)
                if use is not None and (warning := use.warning()):
                    warnings.append(f"{point.width}x{point.depth}, {point.tokens} tokens, {kind}: {warning}")
        return warnings

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the file."""
        points = []
        for point in self.points:
            use, train = self.use(point), self.use(point, "train")
            points.append(
                {
                    **asdict(point),
                    "forward_mfu_measured": use and use.mfu_measured,
                    "train_mfu_measured": train and train.mfu_measured,
                    "forward_mfu_datasheet": use and use.mfu_datasheet,
                    "train_mfu_datasheet": train and train.mfu_datasheet,
                }
            )
        laws = {
            "forward_macs": asdict(self.mac_law),
            "forward_macs_naive": asdict(self.naive_law),
            "forward_seconds": asdict(self.forward_time_law),
            "train_seconds": asdict(self.train_time_law) if self.train_time_law else None,
        }
        return {
            "format": FORMAT,
            "date": self.date,
            "minisora": version("minisora"),
            "device": self.device,
            "measured_peak_flops": self.measured_peak,
            "measured_peak_way": self.peak_words,
            "measured_peak_ways": {name: asdict(way) for name, way in self.peak_ways.items()},
            "datasheet_peak_flops": self.datasheet_peak,
            "laws": laws,
            "warnings": self.warnings(),
            "points": points,
        }

    def save(self, path: Path) -> None:
        """Write it, atomically."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, self.to_dict())

    def table(self) -> Table:
        """The laws, their errors, and the utilisation reached."""
        title = f"calibration on {self.machine}: {len(self.points)} points"
        table = Table("law", "coefficients", "held out: worst", "median", title=title, title_justify="left")
        fits = [self.mac_law, self.naive_law, self.forward_time_law, self.train_time_law]
        for name, fit in zip(
            ("forward MACs", "naive MACs", "forward seconds", "train seconds"), fits, strict=True
        ):
            if fit is not None:
                values = ", ".join(f"{key} {value:.4g}" for key, value in fit.coefficients.items())
                row = (Text.assemble(f"{name}\n", (fit.formula, "dim")), values)
                table.add_row(*row, f"{fit.held_out_error:.2%}", f"{fit.held_out_median:.2%}")
        best = max((mfu, kind) for kind in PASS_KINDS if (mfu := self.best_mfu(kind)) is not None)
        way = f" ({self.peak_words})" if self.peak_words else ""
        table.caption = (
            f"measured peak {self.measured_peak / 1e12:,.3f} TFLOP/s{way}; best MFU against it "
            f"{best[0]:.1%} ({best[1]})" + "".join(f"\n{warning}" for warning in self.warnings())
        )
        return table


def _from_tree(kind: type[Plain], tree: Mapping[str, Any], **more: Any) -> Plain:
    """A plain dataclass from JSON of its fields; other keys are derived values, which are derived again."""
    return kind(**{each.name: tree[each.name] for each in fields(kind)} | more)  # type: ignore[arg-type]


def _point(tree: Mapping[str, Any]) -> SweepPoint:
    train = _from_tree(Timing, tree["train"]) if tree["train"] else None
    return _from_tree(SweepPoint, tree, forward=_from_tree(Timing, tree["forward"]), train=train)


def read_calibration(path: Path) -> Calibration:
    """A file written by `minisora calibrate`.

    Raises:
        UserError: it is missing, of another format, or no calibration at all.
    """
    try:
        tree = read_json(path)
        if tree["format"] != FORMAT:
            raise UserError(f"{path} has format {tree['format']}, not {FORMAT}: run minisora calibrate again")
        laws, train = tree["laws"], tree["laws"]["train_seconds"]
        calibration = Calibration(
            points=[_point(point) for point in tree["points"]],
            mac_law=_from_tree(CostLaw, laws["forward_macs"]),
            naive_law=_from_tree(CostLaw, laws["forward_macs_naive"]),
            forward_time_law=_from_tree(CostLaw, laws["forward_seconds"]),
            train_time_law=_from_tree(CostLaw, train) if train else None,
            measured_peak=tree["measured_peak_flops"],
            datasheet_peak=tree["datasheet_peak_flops"],
            device=tree["device"],
            date=tree["date"],
            peak_ways={
                name: _from_tree(Reached, way) for name, way in tree.get("measured_peak_ways", {}).items()
            },
            path=path,
        )
        # A file whose values are no numbers is noticed here, not in the middle of a report.
        calibration.predict(calibration.features[0])
        _ = (
            calibration.machine,
            calibration.train_over_forward,
            calibration.utilisation,
            calibration.peak_words,
        )
        return calibration
    except FileNotFoundError as error:
        raise UserError(f"no calibration at {path}: make one with minisora calibrate --out {path}") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except (KeyError, TypeError, ValueError, IndexError, ArithmeticError) as error:
        raise UserError(f"{path} is not a calibration: make one with minisora calibrate") from error
