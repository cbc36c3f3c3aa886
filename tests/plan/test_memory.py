"""The planner's memory against what torch keeps, of the smallest cases of benchmarks/plan_memory.py."""

import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from minisora.flops.live_memory import LiveMemory, training_peak
from minisora.plan.blocks import DECODERS

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_a_tensor_counts_once_while_it_lives() -> None:
    memory = LiveMemory()
    with memory:
        a = torch.zeros(100)
        b = a.view(10, 10)[2:]
        assert memory.now == 400
        c = a + 1
        assert (memory.now, memory.peak) == (800, 800)
        del a, c
        # A view holds all of its storage.
        assert memory.now == 400
        del b
    assert (memory.now, memory.peak) == (0, 800)


def test_a_step_holds_weights_gradients_moments_and_what_backward_needs() -> None:
    layer, x = nn.Linear(8, 16, bias=False), torch.zeros(4, 8)
    peak = training_peak(layer, lambda: layer(x).square().sum())
    weights = 8 * 16 * 4
    # AdamW's count of steps, the layer's output, its square while it is summed, and what the sum gives.
    assert 4 * weights + 4 * 16 * 4 <= peak <= 5 * weights + 4 * 4 * 16 * 4


@pytest.mark.parametrize("number", [3, 8, 13, 18])
def test_the_planner_tells_what_torch_keeps(plan_memory: ModuleType, number: int) -> None:
    """One case of each model; the one with checkpointing is the smallest, and activations are the least of it."""
    row = plan_memory.compare(plan_memory.CASES[number])
    assert row["predicted_over_measured"] == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("number", range(0, 8, 2))
def test_a_step_on_a_card_is_walked_on_fake_tensors(plan_memory: ModuleType, number: int) -> None:
    case = replace(plan_memory.ON_A_CARD[number], layers=1, latents=(3, 8, 8))
    with FakeTensorMode(allow_non_fake_inputs=True):
        model, loss = plan_memory.build(case, "cuda", torch.bfloat16)
        # Forward only: a backward pass on fake tensors asks for a card.
        assert loss().device.type == "cuda"
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    numbers = plan_memory.predict(case, 1_000_000, "bfloat16")
    assert 0 < float(numbers["train_activations"]) < float(numbers["train_memory"])


def test_all_twenty_were_within_15_per_cent_when_they_were_measured() -> None:
    tree = json.loads(next((BENCHMARKS / "results").glob("plan-memory_*.json")).read_text())
    assert len(tree["steps"]) == 20
    assert len({row["model"] for row in tree["steps"]}) == 4
    assert all(abs(row["predicted_over_measured"] - 1) <= 0.15 for row in tree["steps"])


def test_a_pass_holds_what_was_measured() -> None:
    tree = json.loads(next((BENCHMARKS / "results").glob("plan-memory_*.json")).read_text())
    assert len(tree["passes"]) == 4
    for row in tree["passes"]:
        assert row["told"] == pytest.approx(row["units"], rel=0.01), row["model"]


def test_the_decoders_of_the_planner_are_those_that_were_measured() -> None:
    tree = json.loads(next((BENCHMARKS / "results").glob("plan-memory_*.json")).read_text())
    known = {decoder.source.split(",")[0]: decoder for decoder in DECODERS.values()}
    # A short clip is decoded in one go, without what the parts of a longer one leave each other.
    rows = [row for row in tree["decoders"] if row["latents"][0] == 5]
    assert len(rows) == 6
    for row in rows:
        decoder = known[row["decoder"]]
        frames = min(row["frames"], decoder.frames_at_once or row["frames"])
        told = frames * decoder.values + decoder.picture_values
        assert told == pytest.approx(row["values_per_picture_pixel"], rel=0.01), row["decoder"]


def test_what_training_a_vae_keeps_is_what_was_measured() -> None:
    tree = json.loads(next((BENCHMARKS / "results").glob("plan-memory_*.json")).read_text())
    known = {decoder.source.split(",")[0]: decoder for decoder in DECODERS.values()}
    assert {row["vae"] for row in tree["vaes"]} == {name for name, each in known.items() if each.kept}
    for row in tree["vaes"]:
        assert known[row["vae"]].kept == pytest.approx(row["kept_of_a_pixel"], rel=0.01)


def test_macs_of_a_pixel_are_those_that_were_counted() -> None:
    tree = json.loads(next((BENCHMARKS / "results").glob("vae-decoders_*.json")).read_text())
    known = {decoder.source.split(",")[0]: decoder for decoder in DECODERS.values()}
    for row in tree["decoders"]:
        decoder = known[row["model"]]
        if not decoder.always:
            assert decoder.macs_per_pixel == pytest.approx(row["macs_per_pixel"], rel=0.01)
        if decoder.encode_macs_per_pixel:
            assert decoder.encode_macs_per_pixel == pytest.approx(row["encode_macs_per_pixel"], rel=0.01)
