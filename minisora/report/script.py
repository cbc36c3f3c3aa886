"""The model as JavaScript for the page: `model.estimate` run once on numbers that write down what happens to them.

The model is arithmetic without branches (choices are `np.where` and `np.select`), so one run meets every operation.
numpy hands its functions to the operands (NEP 13 and 18), and so does all arithmetic of a `Traced`: each operation
becomes a line of the script, once however often it is used.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from minisora.report.model import Inputs, estimate
from minisora.report.units import Quantity

_INFIX = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/", "power": "**", "equal": "==="}
_CALLS = {
    "cbrt": "Math.cbrt", "maximum": "Math.max", "rint": "rint", "floor": "Math.floor", "log10": "Math.log10",
    "absolute": "Math.abs",
}  # fmt: skip
_HEAD = """"use strict";
// Written by script.py from model.py: the estimate on plain numbers.

// A tie goes to the even neighbour, as in numpy.
function rint(value) {
  const rounded = Math.round(value);
  return rounded - value === 0.5 && rounded % 2 !== 0 ? rounded - 1 : rounded;
}

function estimate(inputs) {
"""


class Traced(NDArrayOperatorsMixin):
    """A number of the script.

    Args:
        code: how the script calls it.
        lines: of the script so far: the name of each expression.
    """

    def __init__(self, code: str, lines: dict[str, str]):
        self.code, self.lines = code, lines

    def __bool__(self) -> bool:
        raise TypeError(f"the model branches on {self.code}: choose with np.where or np.select")

    def _named(self, expression: str) -> "Traced":
        return Traced(self.lines.setdefault(expression, f"v{len(self.lines)}"), self.lines)

    def __array_ufunc__(self, function: np.ufunc, method: str, *operands: Any) -> "Traced":
        parts, name = [_code(operand) for operand in operands], function.__name__
        if name in _INFIX:
            return self._named(f" {_INFIX[name]} ".join(parts))
        return self._named(f"{_CALLS[name]}({', '.join(parts)})")

    def __array_function__(
        self, function: Callable[..., Any], types: Any, arguments: Sequence[Any], options: Any
    ) -> "Traced":
        if function is np.where:
            switch, yes, no = map(_code, arguments)
            return self._named(f"{switch} ? {yes} : {no}")
        assert function is np.select, function
        conditions, choices, default = arguments
        assert np.isnan(default)
        chosen = "NaN"
        for condition, choice in reversed(list(zip(conditions, choices, strict=True))):
            chosen = f"{_code(condition)} ? {_code(choice)} : {chosen}"
        return self._named(chosen)


def _code(operand: Any) -> str:
    if isinstance(operand, Traced):
        return operand.code
    return json.dumps(operand if isinstance(operand, str) else float(operand))


def model_script(inputs: Inputs) -> str:
    """A script with the function `estimate`: an object of inputs by assumption in, one of results by name out.

    Args:
        inputs: of any preset; only their names and units are used.
    """
    lines: dict[str, str] = {}
    traced: dict[str, Any] = {}
    for name, value in inputs.items():
        number = Traced(f"inputs[{json.dumps(name)}]", lines)
        traced[name] = Quantity(cast(Any, number), value.powers) if isinstance(value, Quantity) else number
    results = estimate(traced)
    body = "".join(f"  const {name} = {expression};\n" for expression, name in lines.items())
    ends = ", ".join(f"{name}: {_code(quantity.value)}" for name, quantity in results.items())
    return f"{_HEAD}{body}  return {{ {ends} }};\n}}\n"
