"""metrics.jsonl of a run: numbers of all stages, one JSON object a line, and what they say of how a stage went."""

import json
import math
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

# Validations from which the place of the best of them says something.
_ENOUGH = 3


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Records of a metrics file; a line cut short by a crash is left out."""
    records = []
    for line in path.read_text(errors="replace").splitlines():
        # Of brackets by the thousand Python says that it is too deep.
        with suppress(ValueError, RecursionError):
            records.append(json.loads(line))
    return [each for each in records if isinstance(each, dict) and {"stage", "step"} <= each.keys()]


def number(value: Any) -> float | None:
    """A finite number out of a file that may be damaged; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # By comparison: NaN is no less than anything, and a whole number of hundreds of digits is no float.
    return float(value) if abs(value) <= sys.float_info.max else None


def place_of_best(run: Path, stage: str = "dit") -> float | None:
    """Where in a stage the validation loss was least, as a share of its steps in (0, 1].

    Args:
        run: its folder.
        stage: as its records name it.

    Returns:
        None where it is not known: of a run without metrics, or with fewer than three validations of the stage.
    """
    file = run / "metrics.jsonl"
    rows = read_metrics(file) if file.is_file() else []
    known: dict[int, float] = {}
    for row in rows:
        step, loss = row["step"], row.get("val_loss")
        if row["stage"] == stage and isinstance(step, int) and isinstance(loss, int | float):
            known[step] = loss if math.isfinite(loss) else math.inf
    if len(known) < _ENOUGH:
        return None
    # Of equal ones the last.
    best = min(known, key=lambda step: (known[step], -step))
    return best / max(known)
