"""Machines that were measured: the newest calibration at hand, those shipped, and several side by side.

No torch. A calibration is looked for where the commands leave one: calibration.json here (`minisora calibrate`) and in
the run folders below runs/ (`minisora demo`), the newest by its date; else the newest that is shipped. Of some machines
only the peak and the DiT's share of it are known (configs/report/machines.yaml).
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.text import Text

from minisora.config_files import config_folder, read_yaml
from minisora.errors import UserError
from minisora.flops.calibration import Calibration, read_calibration
from minisora.screen import Table, plain

FILE = "calibration.json"
NOTHING = "–"


@dataclass(frozen=True)
class Machine:
    """What is known of a machine in a number format.

    Args:
        name: of the device, and what it is in words where those are known.
        date: of the measurement.
        dtype: the number format.
        threads: of a CPU.
        peak: the most FLOP/s of any way to multiply.
        way: that reached it; None if only torch.mm was tried.
        forward, train: the largest share of the peak that passes of a DiT reached.
        points: of the calibration; None: there is none.
        largest_macs: of its largest pass, a sample.
        error_macs, error_seconds: the worst of its laws on passes they were not fitted to, relative.
        source: the file, or the benchmark.
    """

    name: str
    date: str
    dtype: str
    threads: int | None
    peak: float
    way: str | None
    forward: float | None
    train: float | None
    points: int | None
    largest_macs: float | None
    error_macs: float | None
    error_seconds: float | None
    source: str

    @property
    def key(self) -> tuple[str, str, str, int | None]:
        """What tells two measurements apart."""
        return self.name, self.dtype, self.date, self.points

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def machine_of(calibration: Calibration) -> Machine:
    """A calibration as one row."""
    device = calibration.device
    name, known = str(device["name"] or device["type"]), _words_in_name(calibration.path)
    return Machine(
        name=f"{name} ({known})" if known else name,
        date=calibration.date[:10],
        dtype=str(device["dtype"]),
        threads=device.get("threads"),
        peak=calibration.measured_peak,
        way=calibration.peak_words,
        forward=calibration.best_mfu("forward"),
        train=calibration.best_mfu("train"),
        points=len(calibration.points),
        largest_macs=calibration.largest_macs,
        error_macs=calibration.mac_law.held_out_error,
        error_seconds=calibration.forward_time_law.held_out_error,
        source=_source(calibration.path),
    )


def _source(path: Path | None) -> str:
    """As it was typed; of a long path the name, as pages are shared."""
    if path is None:
        return "just taken"
    return path.name if path.is_absolute() else str(path)


def _words_in_name(path: Path | None) -> str | None:
    """Zen 4 of calibration_zen-4_2026-11-22.json, as results are named."""
    match = re.fullmatch(r"calibration_([\w-]+)_\d{4}-\d\d-\d\d", path.stem) if path else None
    return match[1].replace("-", " ").title() if match else None


def shipped_calibrations() -> list[Calibration]:
    """Those of the package, oldest first: inside it in a wheel, among the results in a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "calibrations"
    folder = inside if inside.is_dir() else package.parent / "benchmarks" / "results"
    return sorted(map(read_calibration, folder.glob("calibration_*.json")), key=lambda each: each.date)


def known_machines() -> list[Machine]:
    """Every machine that is shipped, by name, format and date: of calibrations and of benchmarks."""
    tree = read_yaml(config_folder() / "report" / "machines.yaml")["machines"]
    measured = [
        Machine(
            name=f"{row['name']} ({row['machine']})",
            date=row["date"],
            dtype=row["dtype"],
            threads=row["threads"],
            peak=float(row["peak"]),
            way=None,
            forward=row["forward"],
            train=row["train"],
            points=None,
            largest_macs=None,
            error_macs=None,
            error_seconds=None,
            source="benchmarks/dit_peers.py",
        )
        for row in tree
    ]
    shipped = [machine_of(each) for each in shipped_calibrations()]
    return sorted([*shipped, *measured], key=lambda each: (each.name, each.dtype, each.date))


@dataclass(frozen=True)
class Found:
    """A calibration that nobody named.

    Args:
        calibration: the newest at hand; None: there is none at all.
        shipped: whether it is the package's own, so of another machine than this one, perhaps.
        passed_over: why files were not used, a line each.
    """

    calibration: Calibration | None
    shipped: bool
    passed_over: list[str]

    def words(self) -> str:
        """Which one, from which machine, and how to do without."""
        if self.calibration is None:
            return "no calibration is at hand: the measured column stays empty (minisora calibrate makes one)"
        kind = "the newest shipped with minisora" if self.shipped else "the newest found here"
        machine = machine_of(self.calibration)
        return (
            f"calibration: {self.calibration.path}, {kind}, taken on {machine.name}, {machine.dtype}, "
            f"{machine.date}; --calibration FILE names another, --calibration none leaves it out"
        )


def find_calibration(here: Path = Path()) -> Found:
    """The newest calibration of a folder and of the runs below it, else the newest that is shipped.

    Args:
        here: the folder that holds runs/.
    """
    found, passed_over = [], []
    for path in [here / FILE, *sorted((here / "runs").glob(f"*/{FILE}"))]:
        if path.is_file():
            try:
                found.append(read_calibration(path))
            except UserError as error:
                passed_over.append(f"passed over: {error}")
    if found:
        return Found(max(found, key=lambda each: each.date), False, passed_over)
    shipped = shipped_calibrations()
    return Found(shipped[-1] if shipped else None, True, passed_over)


def machine_table(machines: Iterable[Machine], title: str = "machines measured") -> Table:
    """A row a machine."""
    columns = ("machine", "format", "peak, GFLOP/s", "MFU: forward, train", "passes")
    table = Table(*columns, title=title, title_justify="left")
    for each in machines:
        threads = f", {each.threads} thread{'s' if each.threads > 1 else ''}" if each.threads else ""
        passes = (NOTHING, "")
        if each.points is not None and each.largest_macs is not None:
            off = _written(each.error_seconds, ".0%")
            passes = (f"{each.points}, to {each.largest_macs / 1e9:,.2f} GMACs", f"\ntime law off by {off}")
        table.add_row(
            Text.assemble(plain(each.name), (f"\n{plain(each.date + threads)}", "dim")),
            each.dtype,
            Text.assemble(f"{each.peak / 1e9:,.1f}", (f"\n{plain(each.way or 'torch.mm')}", "dim")),
            f"{_written(each.forward, '.1%')}, {_written(each.train, '.1%')}",
            Text.assemble(passes[0], (passes[1], "dim")),
        )
    table.caption = "MFU: the most of the machine's own peak; off: at worst, on passes that were not fitted"
    return table


def _written(value: float | None, form: str) -> str:
    return NOTHING if value is None else format(value, form)


def compare(paths: Sequence[Path]) -> list[Machine]:
    """Calibrations by their files, and without any what is found here and every machine shipped.

    Raises:
        UserError: a file is no calibration.
    """
    if paths:
        return [machine_of(read_calibration(path)) for path in paths]
    found = find_calibration()
    own = [] if found.shipped or found.calibration is None else [machine_of(found.calibration)]
    return [*own, *known_machines()]
