"""The page's JavaScript is the model: every result of random and of shipped inputs, under node."""

import json
import shutil
import subprocess
from typing import Any

import numpy as np
import pytest

from minisora.report.assumptions import Assumptions, load_preset, presets
from minisora.report.cost import ATTENTIONS
from minisora.report.javascript import Traced
from minisora.report.model import estimate
from minisora.report.page import model_script


def test_a_branch_of_the_model_cannot_pass_unseen() -> None:
    with pytest.raises(TypeError, match="np.where"):
        bool(Traced("inputs[0]", {}))


def test_an_operation_is_written_once_and_before_its_use() -> None:
    lines: dict[str, str] = {}
    x = Traced("x", lines)
    assert (2.0 * x + np.cbrt(2.0 * x)).code == "v2"
    assert list(lines) == ["2.0 * x", "Math.cbrt(v0)", "v0 + v1"]


def random_change(assumptions: Assumptions, generator: np.random.Generator) -> dict[str, Any]:
    """Another value for every assumption, from one end of its limits to the other."""
    changed: dict[str, Any] = {}
    for name, entry in assumptions.entries.items():
        if entry.choices:
            changed[name] = str(generator.choice(entry.choices))
            continue
        assert entry.limits
        low, high = entry.limits
        if (low, high) == (0, 1):
            changed[name] = float(generator.choice([0.0, 1.0, generator.random()]))
        elif entry.spread == "linear":
            changed[name] = float(generator.uniform(low, high))
        else:
            start = max(low, high / 1e6)
            changed[name] = float(start * (high / start) ** generator.random())
            if low == 0 and generator.random() < 0.2:
                changed[name] = 0.0
    return changed


def in_node(script: str) -> Any:
    """What a script that ends in `return VALUE` finds beside the model's script alone."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    source = model_script(load_preset("measured").inputs())
    program = f"{source}\nconsole.log(JSON.stringify((() => {{ {script} }})()));"
    done = subprocess.run(
        [node, "-"], input=program, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_script_is_the_same_model_in_javascript() -> None:
    assumptions = load_preset("measured")
    generator = np.random.default_rng(0)
    changes = [random_change(assumptions, generator) for _ in range(40)]
    changes += [{**changes[i], "sora.attention": kind} for i, kind in enumerate(("per_frame", *ATTENTIONS))]
    # A tie in rounding: numpy rounds to even, JavaScript up.
    changes += [{"sora.round_size_ratio": 1.0, "sora.params": n * 675e6} for n in (28.5, 29.5)]
    changes += [{"dit.round_training_compute": 1.0, "dit.batch": batch} for batch in (1.0, 256.0, 700.0)]
    own = {name: entry.value for name, entry in assumptions.entries.items()}
    cases = [{**own, **change} for change in changes]
    cases += [
        {name: entry.value for name, entry in load_preset(preset).entries.items()} for preset in presets()
    ]
    script = f"return {json.dumps(cases)}.map(estimate);"
    found = in_node(script)
    assert len(found) == len(cases) == 54
    for case, results in zip(cases, found, strict=True):
        with np.errstate(all="ignore"):
            expected = estimate(assumptions.inputs(case))
        assert list(results) == list(expected)
        for name, quantity in expected.items():
            # JSON has no infinity: a tiny Sora rounded to no DiT at all.
            if results[name] is None:
                assert not np.isfinite(quantity.value), name
            else:
                assert results[name] == pytest.approx(float(quantity.value), rel=5e-7, abs=1e-300), name
