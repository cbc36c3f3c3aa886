"""Quantities with units that cannot be mixed by accident.

The published estimate goes wrong where multiply-accumulates are read as FLOPs, and GPU-hours sit beside
GPU-months. Here a unit is a product of *symbols*, and two symbols never convert in silence, not even hours
and days: a conversion is a factor that stands in the formula (`FLOP_PER_MAC`, `HOURS_PER_DAY`).

    Quantity(524.6e9, "MAC") * FLOP_PER_MAC          -> Quantity(1.0492e12, "FLOP")
    Quantity(524.6e9, "MAC") + Quantity(1.0, "FLOP") -> UnitError, and an error of the type checker

Values are floats or numpy arrays (one entry a Monte Carlo draw).
"""

from typing import Any, Generic, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

Number = float | NDArray[np.float64]
Powers = tuple[tuple[str, int], ...]


class UnitError(TypeError):
    """Two units that cannot be added, compared or taken for one another."""


class Unit:
    """Any unit, for the type checker. Its subclasses name those that are most easily confused."""


class Macs(Unit):
    """Multiply-accumulates."""


class Flops(Unit):
    """Floating-point operations: two for each multiply-accumulate."""


class GpuHours(Unit):
    """Hours of one GPU."""


class GpuMonths(Unit):
    """Months of one GPU."""


U = TypeVar("U", bound=Unit)


def parse_unit(text: str) -> Powers:
    """Symbols and powers of "FLOP/s", "min/GPU/h" or "GPU*h"; an empty text is a plain number.

    Everything after the first "/" divides.
    """
    powers: dict[str, int] = {}
    for position, part in enumerate(text.split("/")):
        for symbol in part.split("*"):
            if symbol.strip() not in ("", "1"):
                powers[symbol.strip()] = powers.get(symbol.strip(), 0) + (1 if position == 0 else -1)
    return tuple(sorted((symbol, power) for symbol, power in powers.items() if power))


def format_unit(powers: Powers) -> str:
    """The text that `parse_unit` reads."""
    above = [symbol for symbol, power in powers for _ in range(power)]
    below = [symbol for symbol, power in powers for _ in range(-power)]
    return "/".join(["*".join(above) or ("1" if below else ""), *below])


class Quantity(Generic[U]):
    """A number, or an array of draws, and its unit.

    Args:
        value: in that unit.
        unit: as `parse_unit` reads it.
    """

    # An array times a Quantity is a Quantity, not an array of objects.
    __array_ufunc__ = None
    __slots__ = ("powers", "value")

    def __init__(self, value: Number, unit: str | Powers = ""):
        self.value = value
        self.powers = parse_unit(unit) if isinstance(unit, str) else unit

    @property
    def unit(self) -> str:
        """As text."""
        return format_unit(self.powers)

    def __repr__(self) -> str:
        return f"Quantity({self.value!r}, {self.unit!r})"

    def to(self, unit: str) -> Number:
        """The plain number, for who names the right unit.

        Raises:
            UnitError: it has another.
        """
        if self.powers != parse_unit(unit):
            raise UnitError(f"expected {unit or 'a plain number'}, got {self.unit or 'a plain number'}")
        return self.value

    def named(self, unit: str) -> "Quantity[Any]":
        """The same, after a check that this is its unit.

        Raises:
            UnitError: it is not.
        """
        return Quantity(self.to(unit), unit)

    def _same(self, other: "Quantity[Any]", verb: str) -> None:
        if not isinstance(other, Quantity):
            raise UnitError(f"cannot {verb} {self.unit or 'a plain number'} and {other!r}, which has no unit")
        if self.powers != other.powers:
            raise UnitError(f"cannot {verb} {self.unit} and {other.unit}: convert one with a named factor")

    def __add__(self, other: "Quantity[U]") -> "Quantity[U]":
        self._same(other, "add")
        return Quantity(self.value + other.value, self.powers)

    def __sub__(self, other: "Quantity[U]") -> "Quantity[U]":
        self._same(other, "subtract")
        return Quantity(self.value - other.value, self.powers)

    def __lt__(self, other: "Quantity[U]") -> Any:
        self._same(other, "compare")
        return self.value < other.value

    @overload
    def __mul__(self, other: "Quantity[Any]") -> "Quantity[Any]": ...
    @overload
    def __mul__(self, other: Number) -> "Quantity[U]": ...
    def __mul__(self, other: "Quantity[Any] | Number") -> "Quantity[Any]":
        if isinstance(other, Quantity):
            return Quantity(self.value * other.value, _combine(self.powers, other.powers, 1))
        return Quantity(self.value * other, self.powers)

    def __rmul__(self, other: Number) -> "Quantity[U]":
        return Quantity(other * self.value, self.powers)

    @overload
    def __truediv__(self, other: "Quantity[Any]") -> "Quantity[Any]": ...
    @overload
    def __truediv__(self, other: Number) -> "Quantity[U]": ...
    def __truediv__(self, other: "Quantity[Any] | Number") -> "Quantity[Any]":
        if isinstance(other, Quantity):
            return Quantity(self.value / other.value, _combine(self.powers, other.powers, -1))
        return Quantity(self.value / other, self.powers)


def _combine(left: Powers, right: Powers, sign: int) -> Powers:
    powers = dict(left)
    for symbol, power in right:
        powers[symbol] = powers.get(symbol, 0) + sign * power
    return tuple(sorted((symbol, power) for symbol, power in powers.items() if power))


FLOP_PER_MAC: Quantity[Any] = Quantity(2.0, "FLOP/MAC")
SECONDS_PER_HOUR: Quantity[Any] = Quantity(3600.0, "s/h")
SECONDS_PER_MINUTE: Quantity[Any] = Quantity(60.0, "s/min")
HOURS_PER_DAY: Quantity[Any] = Quantity(24.0, "h/day")
# The month that the published figures imply.
DAYS_PER_MONTH: Quantity[Any] = Quantity(30.0, "day/month")
