"""Arithmetic as JavaScript: a function is run once on numbers that write down what happens to them.

It is arithmetic without branches (choices are `np.where` and `np.select`), so that one run meets every operation. numpy
hands its functions to the operands (NEP 13 and 18), and so does all arithmetic of a `Traced`: each operation becomes a
line of the script, once however often it is used.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

_INFIX = {
    "add": "+", "subtract": "-", "multiply": "*", "divide": "/", "power": "**", "equal": "===", "greater": ">",
    "less": "<",
}  # fmt: skip
_CALLS = {
    "cbrt": "Math.cbrt", "maximum": "Math.max", "minimum": "Math.min", "rint": "rint", "floor": "Math.floor",
    "ceil": "Math.ceil", "log10": "Math.log10", "absolute": "Math.abs",
}  # fmt: skip
SCRIPT_HEAD = """"use strict";
// Written from Python by javascript.py: the same arithmetic on plain numbers.

// A tie goes to the even neighbour, as in numpy.
function rint(value) {
  const rounded = Math.round(value);
  return rounded - value === 0.5 && rounded % 2 !== 0 ? rounded - 1 : rounded;
}

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


def function_script(
    name: str, inputs: Iterable[str], work: Callable[[dict[str, Traced]], Mapping[str, Any]]
) -> str:
    """A JavaScript function of one object, by name, that returns another.

    Args:
        name: of the function.
        inputs: names in the object that it takes.
        work: the same in Python: numbers by name in, results by name out; each a `Traced` or a plain number.
    """
    lines: dict[str, str] = {}
    results = work({each: Traced(f"inputs[{json.dumps(each)}]", lines) for each in inputs})
    body = "".join(f"  const {line} = {expression};\n" for expression, line in lines.items())
    ends = ", ".join(f"{each}: {_code(value)}" for each, value in results.items())
    return f"function {name}(inputs) {{\n{body}  return {{ {ends} }};\n}}\n"
