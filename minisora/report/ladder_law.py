"""What a scaling ladder says of the report's size: law.json of `minisora scale fit`, read and put into words.

The report guesses 20e9 parameters for its training. A law of the best size N* ~ C^a answers that, from runs a dozen
decades smaller: the distance of the extrapolation stands beside every number, and a law whose exponents the runs do
not determine says nothing at all. No torch, as all of the estimate.
"""

from pathlib import Path
from typing import Any

from minisora.errors import UserError
from minisora.files import read_json

INTERVALS = (
    "In brackets: 90 % intervals from the noise of the losses alone; the form of the law is taken as given. The "
    "published laws count 6 N D, which leaves out what attention costs beyond its weights."
)


def read_law(path: Path) -> dict[str, Any]:
    """The answer of a ladder's laws, ready for report.json.

    Args:
        path: law.json, as `minisora scale fit` writes it.

    Returns:
        file, runs, flops (budgets of the question: a round one, then the report's training, least and most data),
        decades_beyond_data (to each), loss_exponent (value, interval, determined), held_out (error, and whether its
        best size lies between the sizes tried), and rows: a law each with exponent, params at each budget, their
        90 % intervals where there are any, and the decades from its largest run to each budget.

    Raises:
        UserError: it is missing, or no law.
    """
    try:
        tree = read_json(path)
        best, budget = tree["optimal"], tree["budget_law"]
        flops = [float(each) for each in best["flops"]]
        own = {"loss_law": "this ladder, L(N, D)", "parabolas": "this ladder, isoFLOP parabolas"}
        rows = [
            {**best[name], "law": title, "own": True, "decades_beyond_data": best["decades_beyond_data"]}
            for name, title in own.items()
            if name in best
        ]
        rows += [
            {
                "law": f"{row['name']} ({row['source']})",
                "own": False,
                "of": row["of"],
                "exponent": row["exponent"],
                "exponent_interval": None,
                "params": row["params"],
                "params_intervals": [None] * len(flops),
                "decades_beyond_data": row["decades_beyond_data"],
                "determined": True,
            }
            for row in best["published"]
        ]
        return {
            "file": path.name,
            "runs": tree["runs"],
            "flops": flops,
            "reports_params": best["reports_params"],
            "decades_beyond_data": best["decades_beyond_data"],
            "loss_exponent": {
                "value": budget["constants"]["alpha"],
                "interval": budget["intervals"].get("alpha"),
                "determined": budget["determined"],
            },
            "held_out": {"error": tree["held_out"]["error"], "inside": tree["held_out"]["inside"]},
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
    """Whether the report's size is the best for its training, with the distances in it.

    Laws of images and video count, with the whole of their intervals; one of text does not.
    """
    laws = [row for row in law["rows"] if row["determined"] and row.get("of") != "text"]
    ends = [
        interval or [params, params]
        for row in laws
        for params, interval in list(zip(row["params"], row["params_intervals"], strict=True))[1:]
    ]
    smallest, largest, size = (
        min(low for low, _ in ends),
        max(high for _, high in ends),
        law["reports_params"],
    )
    word = "below" if largest < size else "above" if smallest > size else "on both sides of"
    others = [row["decades_beyond_data"][-1] for row in laws if not row["own"]]
    text = (
        f"For the report's training, {law['flops'][1]:.2g} to {law['flops'][-1]:.2g} FLOPs, laws of images and video "
        f"put the best size at {smallest:.2g} to {largest:.2g} parameters, {word} its {size:.0e}. "
        f"The largest runs behind the published ones lie up to {max(others):.1f} decades below that"
    )
    beyond = f"{law['decades_beyond_data'][-1]:.1f} DECADES"
    if any(row["own"] for row in laws):
        return f"{text}; THIS LADDER ENDS {beyond} BELOW: no measurement supports its rows there."
    return f"{text}; none of them is this ladder's, which ends {beyond} BELOW AND DOES NOT DETERMINE A SIZE THERE."
