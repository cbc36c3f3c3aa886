"""What a scaling ladder says of the report's size: law.json of `minisora scale fit`, read and put into words.

The report guesses 20e9 parameters for its training budget. A law of the best size N* ~ C^a answers that, from runs a
dozen decades smaller: the distance of the extrapolation stands beside every number, and a law whose exponents the runs
do not determine says nothing at all. No torch, as all of the estimate.
"""

import json
from pathlib import Path
from typing import Any

from minisora.errors import UserError

_UNBOUNDED: dict[str, Any] = {"exponent_interval": None, "params_interval": None}


def read_law(path: Path) -> dict[str, Any]:
    """The answer of a ladder's laws, ready for report.json.

    Args:
        path: law.json, as `minisora scale fit` writes it.

    Returns:
        file, runs, flops (of the question), decades_beyond_data, loss_exponent (value, low, high, determined),
        held_out_error, and rows: a law each with exponent, params, over_the_reports_20B, their 90 % intervals where
        there are any, and the decades between its data and the question.

    Raises:
        UserError: it is missing, or no law.
    """
    try:
        tree = json.loads(path.read_text())
        best, budget = tree["optimal"], tree["budget_law"]
        own = {"loss_law": "this ladder, L(N, D)", "parabolas": "this ladder, isoFLOP parabolas"}
        rows = [
            {
                **_UNBOUNDED,
                **best[name],
                "law": title,
                "decades_beyond_data": best["decades_beyond_data"],
            }
            for name, title in own.items()
            if name in best
        ]
        reports = best["reports_params"]
        rows += [
            {
                **_UNBOUNDED,
                "law": f"{row['name']} ({row['source']})",
                "exponent": row["exponent"],
                "params": row["params"],
                "over_the_reports_20B": row["params"] / reports,
                "decades_beyond_data": row["decades_beyond_data"],
                "determined": True,
            }
            for row in best["published"]
        ]
        return {
            "file": path.name,
            "runs": tree["runs"],
            "flops": best["flops"],
            "reports_params": reports,
            "decades_beyond_data": best["decades_beyond_data"],
            "loss_exponent": {
                "value": budget["constants"]["alpha"],
                "interval": budget["intervals"].get("alpha"),
                "determined": budget["determined"],
            },
            "held_out_error": tree["held_out"]["error"],
            "rows": rows,
        }
    except FileNotFoundError as error:
        raise UserError(
            f"no law at {path}: make one with minisora scale run, then minisora scale fit"
        ) from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is not a law of a ladder: make one with minisora scale fit") from error


def verdict(law: dict[str, Any]) -> str:
    """Whether the report's size is the best for its budget, in one sentence with the distance in it."""
    said = [row for row in law["rows"] if row["determined"]]
    smallest, largest = (pick(row["params"] for row in said) for pick in (min, max))
    size = law["reports_params"]
    word = "below" if largest < size else "above" if smallest > size else "around"
    own = "" if any("this ladder" in row["law"] for row in said) else " (none of them from this ladder)"
    return (
        f"For {law['flops']:.0e} FLOPs the laws{own} put the best size at {smallest:.2g} to {largest:.2g} parameters, "
        f"{word} the report's {size:.0e}. THIS LADDER ENDS {law['decades_beyond_data']:.1f} DECADES BEFORE THAT "
        "BUDGET: its own rows are an extrapolation that no measurement supports."
    )
