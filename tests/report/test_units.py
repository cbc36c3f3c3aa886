import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from minisora.report.units import FLOP_PER_MAC, Quantity, UnitError, format_unit, parse_unit


def test_macs_are_not_flops() -> None:
    macs, flops = Quantity(1.0, "MAC"), Quantity(1.0, "FLOP")
    with pytest.raises(UnitError, match="cannot add MAC and FLOP"):
        _ = macs + flops
    assert (macs * FLOP_PER_MAC + flops).to("FLOP") == 3.0


@pytest.mark.parametrize(
    ("left", "right"), [("GPU*h", "GPU*month"), ("FLOP", "FLOP/s"), ("min", "s"), ("", "FLOP")]
)
def test_nothing_converts_in_silence(left: str, right: str) -> None:
    for verb in ("__add__", "__sub__", "__lt__"):
        with pytest.raises(UnitError):
            getattr(Quantity(1.0, left), verb)(Quantity(1.0, right))
    with pytest.raises(UnitError, match="expected"):
        Quantity(1.0, left).to(right)


def test_a_plain_number_is_not_added() -> None:
    with pytest.raises(UnitError, match="has no unit"):
        _ = Quantity(1.0, "FLOP") + 1.0  # type: ignore[operator]


def test_products_and_quotients_combine_units() -> None:
    assert parse_unit("min/GPU/h") == parse_unit("min/h/GPU")
    assert format_unit(parse_unit("GPU*h/month")) == "GPU*h/month"
    speed = Quantity(2.0, "FLOP/s/GPU")
    assert (Quantity(8.0, "FLOP") / speed).to("GPU*s") == 4.0
    assert (Quantity(8.0, "FLOP") / Quantity(2.0, "FLOP")).to("") == 4.0


def test_arrays_of_draws_keep_their_unit() -> None:
    draws = np.arange(3.0)
    assert np.array_equal((draws * Quantity(2.0, "MAC")).to("MAC"), [0, 2, 4])
    assert np.array_equal((Quantity(2.0, "MAC") * draws).to("MAC"), [0, 2, 4])


@pytest.mark.slow
def test_mixed_units_fail_to_build(tmp_path: Path) -> None:
    """The type checker refuses the sum before anything runs."""
    pairs = {("Macs", "Flops"): False, ("GpuHours", "GpuMonths"): False, ("Flops", "Flops"): True}
    for left, right in pairs:
        (tmp_path / f"{left}_{right}.py".lower()).write_text(
            f"from minisora.report.units import {left} as Left, {right} as Right, Quantity\n"
            "def add(a: Quantity[Left], b: Quantity[Right]) -> object:\n    return a + b\n"
        )
    config = Path(__file__).parents[2] / "pyproject.toml"
    command = [sys.executable, "-m", "mypy", "--config-file", str(config), "--cache-dir", str(tmp_path / "c")]
    sources = [str(path) for path in sorted(tmp_path.glob("*.py"))]
    done = subprocess.run(
        [*command, *sources], capture_output=True, text=True, cwd=config.parent, check=False
    )
    assert done.returncode == 1, done.stdout
    errors = [line for line in done.stdout.splitlines() if ": error: " in line]
    for (left, right), builds in pairs.items():
        (*refused,) = (line for line in errors if f"{left}_{right}.py:".lower() in line)
        assert ["Unsupported operand types for +" in line for line in refused] == ([] if builds else [True])
