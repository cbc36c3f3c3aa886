"""Names for codes: a side table from codes to buttons, counted on a few labelled steps.

Training never sees it. A person who plays, and a planner, press by it; a measurement decodes by it.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minisora.errors import UserError
from minisora.files import read_json, write_json

_FORMAT = 1


@dataclass(frozen=True)
class CodeNames:
    """How often each button was pressed where each code was found.

    Args:
        buttons: their names.
        counts: a row for each code, a number for each button.
    """

    buttons: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]

    @property
    def meanings(self) -> tuple[int, ...]:
        """The button that each code means most often; for a code without a label the most common of all."""
        table = np.array(self.counts)
        common = int(table.sum(0).argmax())
        return tuple(int(row.argmax()) if row.sum() else common for row in table)

    @property
    def names(self) -> tuple[str, ...]:
        """A word for each code; "code 3" where there is no label."""
        pairs = zip(self.counts, self.meanings, strict=True)
        return tuple(
            self.buttons[meaning] if sum(row) else f"code {code}" for code, (row, meaning) in enumerate(pairs)
        )

    @property
    def pressed(self) -> dict[str, int]:
        """The code to press for each button: of those that mean it the one that is often it and seldom another."""
        table, meanings = np.array(self.counts), np.array(self.meanings)
        codes = {}
        for button, name in enumerate(self.buttons):
            own = np.where(meanings == button, table[:, button], 0)
            # Labels of the button, times their share of the code's labels.
            worth = own**2 / np.maximum(1, table.sum(1))
            if worth.max() > 0:
                codes[name] = int(worth.argmax())
        return codes

    def accuracy(self, codes: Sequence[int] | np.ndarray, buttons: Sequence[int] | np.ndarray) -> float:
        """Share of steps whose code means the button that was pressed."""
        return float((np.array(self.meanings)[np.asarray(codes)] == np.asarray(buttons)).mean())

    def write(self, file: Path) -> None:
        """Write the table down, at once; raises OSError where that cannot be."""
        write_json(file, {"format": _FORMAT, **asdict(self)})


def name_codes(
    codes: Sequence[int] | np.ndarray,
    buttons: Sequence[int] | np.ndarray,
    num_codes: int,
    button_names: Sequence[str],
) -> CodeNames:
    """Count the buttons of labelled steps by the code found for each.

    Args:
        codes: of the steps.
        buttons: of the same steps.
        num_codes: how many codes there are.
        button_names: by number.

    Raises:
        UserError: there is no labelled step.
    """
    if not len(codes):
        raise UserError("no labelled step to name codes by: give --labels 200")
    table = np.zeros((num_codes, len(button_names)), np.int64)
    np.add.at(table, (np.asarray(codes), np.asarray(buttons)), 1)
    return CodeNames(tuple(button_names), tuple(tuple(row) for row in table.tolist()))


def read_names(file: Path) -> CodeNames | None:
    """The table that `CodeNames.write` wrote; None if there is none.

    Raises:
        UserError: it is damaged.
    """
    if not file.is_file():
        return None
    try:
        tree: dict[str, Any] = read_json(file)
        buttons, counts = tree["buttons"], tree["counts"]
        if not all(isinstance(name, str) for name in buttons) or not buttons or not counts:
            raise ValueError("no names")
        rows = tuple(tuple(int(number) for number in row) for row in counts)
        if any(len(row) != len(buttons) or min(row) < 0 for row in rows):
            raise ValueError("rows of another length")
        return CodeNames(tuple(buttons), rows)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"{file} is no table of names ({error}): delete it, and run 'minisora world name' again"
        ) from error
