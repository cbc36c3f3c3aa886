"""Datasheet peaks of accelerators, dense, with their sources, and what a timed pass reached of a peak.

Stands alone: no torch, no guess. MFU = model FLOPs / (seconds x peak). It is given against two peaks: the datasheet's,
where the card is listed, and the most that any way to multiply reached on the machine in the same number format.
Against the second it cannot honestly pass 100 %: if it does, the count or the clock is wrong, and `Utilisation` says
so.

A card that is not listed has no datasheet peak here; then only the peak measured on the machine is used
(`minisora.flops.measured_peak`). Datasheets print tensor peaks *with sparsity*, twice the
dense figure; dense ones are given here.
"""

import re
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Card:
    """One accelerator.

    Args:
        name: for people.
        pattern: what `torch.cuda.get_device_name()` matches, case-insensitively.
        tflops: dense peak in TFLOP/s (1e12 operations a second) by torch dtype name; "tf32" is float32 through
            tensor cores, "float32" is not.
        bandwidth: memory bandwidth in TB/s.
        source: where the figures are printed.
        memory: in GB as printed, which is about as many GiB of what a process may take.
        link: to the other cards of the machine, GB/s one way (NVLink, or else PCIe; printed as the sum of both ways).
    """

    name: str
    pattern: str
    tflops: dict[str, float]
    bandwidth: float
    source: str
    memory: float
    link: float


_HOPPER = "NVIDIA H100 datasheet, printed with sparsity and halved here"
_AMPERE = "NVIDIA A100 datasheet, the figures without sparsity"

# The first match counts, so the more special name comes first. A figure without a source is left out.
CARDS: tuple[Card, ...] = (
    Card(
        "H100 PCIe",
        r"H100.*PCIe",
        {
            "bfloat16": 756.0,
            "float16": 756.0,
            "float8": 1513.0,
            "int8": 1513.0,
            "tf32": 378.0,
            "float32": 51.0,
        },
        2.0,
        _HOPPER,
        80,
        64,
    ),
    Card(
        "H100 NVL",
        r"H100.*NVL",
        {"bfloat16": 835.0, "float16": 835.0},
        3.9,
        "NVIDIA H100 page, NVL column, halved (also pytorch/torchtitan, get_peak_flops)",
        94,
        300,
    ),
    Card(
        "H100 SXM",
        r"H100.*(HBM3|SXM)",
        {
            "bfloat16": 989.4,
            "float16": 989.4,
            "float8": 1978.9,
            "int8": 1978.9,
            "tf32": 494.7,
            "float32": 66.9,
        },
        3.35,
        f"{_HOPPER}; 989.4 = 132 SM x 4,096 FLOP x 1.83 GHz",
        80,
        450,
    ),
    Card(
        "H200 SXM",
        r"H200(?!.*NVL)",
        {"bfloat16": 989.0, "float16": 989.0, "float8": 1979.0, "int8": 1979.0},
        4.8,
        "NVIDIA H200 datasheet, printed with sparsity and halved here",
        141,
        450,
    ),
    Card(
        "B200",
        r"\bB200\b",
        {"bfloat16": 2250.0, "float16": 2250.0, "float8": 4500.0, "int8": 4500.0},
        8.0,
        "NVIDIA HGX B200 datasheet, one card, printed with sparsity and halved here",
        180,
        900,
    ),
    Card(
        "A100 80GB",
        r"A100.*80GB",
        {"bfloat16": 312.0, "float16": 312.0, "int8": 624.0, "tf32": 156.0, "float32": 19.5},
        2.0,
        _AMPERE,
        80,
        300,
    ),
    Card(
        "A100 40GB",
        r"A100.*40GB",
        {"bfloat16": 312.0, "float16": 312.0, "int8": 624.0, "tf32": 156.0, "float32": 19.5},
        1.555,
        _AMPERE,
        40,
        300,
    ),
    Card(
        "L40S",
        r"L40S",
        {
            "bfloat16": 362.05,
            "float16": 362.05,
            "float8": 733.0,
            "int8": 733.0,
            "tf32": 183.0,
            "float32": 91.6,
        },
        0.864,
        "NVIDIA L40S datasheet, the first of 'dense | with sparsity'",
        48,
        32,
    ),
    Card(
        "V100 SXM2", r"V100-SXM2", {"float16": 125.0, "float32": 15.7}, 0.9, "NVIDIA V100 datasheet", 32, 150
    ),
)


def find_card(device_name: str) -> Card | None:
    """The card of a `torch.cuda.get_device_name()`, or None if it is not listed. Never a guess."""
    return next((card for card in CARDS if re.search(card.pattern, device_name, re.IGNORECASE)), None)


def datasheet_peak(device_name: str, dtype: str) -> float | None:
    """Dense datasheet peak in FLOP/s, or None if the card or the dtype is not listed.

    Args:
        device_name: from `torch.cuda.get_device_name()`.
        dtype: a torch dtype's name without "torch.", "tf32", or "float8" for either 8-bit format.
    """
    card = find_card(device_name)
    key = "float8" if dtype.startswith("float8") else dtype
    return None if card is None or key not in card.tflops else card.tflops[key] * 1e12


@dataclass(frozen=True)
class Reached:
    """What one way to multiply reached: at which shape, and how many FLOP/s."""

    shape: str
    flops_per_second: float


@dataclass(frozen=True)
class MeasuredPeak:
    """The most FLOP/s that a machine reached in a number format: the best of every way to multiply, at least one.

    `ways` has the best shape of each, by its name.
    """

    ways: dict[str, Reached]

    @property
    def flops_per_second(self) -> float:
        """Of the best way."""
        return self.ways[self.best].flops_per_second

    @property
    def best(self) -> str:
        """Name of the best way."""
        return max(self.ways, key=lambda way: self.ways[way].flops_per_second)

    @property
    def words(self) -> str:
        """The best way and its shape."""
        return f"{self.best}, {self.ways[self.best].shape}"

    def merge(self, other: "MeasuredPeak") -> "MeasuredPeak":
        """The better of two measurements, way by way: a peak is a maximum."""
        ways = dict(self.ways)
        for name, reached in other.ways.items():
            if name not in ways or reached.flops_per_second > ways[name].flops_per_second:
                ways[name] = reached
        return MeasuredPeak(ways)


@dataclass(frozen=True)
class Timing:
    """Seconds of several runs after warm-up, and the memory at their peak.

    `memory_bytes` is what torch allocated at most (CUDA) or the process's resident size afterwards (CPU).
    """

    median: float
    minimum: float
    maximum: float
    runs: int
    memory_bytes: int


@dataclass(frozen=True)
class Utilisation:
    """How much of a peak a pass reached; FLOP/s, and fractions of 1 (None where there is no peak)."""

    flops: int
    seconds: float
    datasheet_peak: float | None
    measured_peak: float

    @property
    def achieved(self) -> float:
        """FLOP/s."""
        return self.flops / self.seconds

    @property
    def mfu_datasheet(self) -> float | None:
        """Against the datasheet."""
        return None if self.datasheet_peak is None else self.achieved / self.datasheet_peak

    @property
    def mfu_measured(self) -> float:
        """Against the best that this machine itself reached."""
        return self.achieved / self.measured_peak

    def warning(self) -> str | None:
        """What is wrong if a utilisation passes 100 %, else None."""
        reached = {"datasheet": self.mfu_datasheet, "measured": self.mfu_measured}
        over = [f"{kind} peak" for kind, mfu in reached.items() if mfu is not None and mfu > 1]
        if not over:
            return None
        return (
            f"MFU passes 100 % of the {' and the '.join(over)} ({self.achieved:.3e} FLOP/s): the FLOP count "
            "or the clock is wrong, or the peak was taken in another number format or on a busier machine"
        )

    def to_dict(self) -> dict[str, Any]:
        """For JSON, with the warning if there is one."""
        derived = {
            "achieved_flops_per_second": self.achieved,
            "mfu_datasheet": self.mfu_datasheet,
            "mfu_measured": self.mfu_measured,
        }
        warning = self.warning()
        return {**asdict(self), **derived, **({"warning": warning} if warning else {})}
