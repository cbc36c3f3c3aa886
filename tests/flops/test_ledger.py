"""The ledger of a config: its JSON keeps the interface, and its parts add up."""

import json
import re

import pytest
import torch
from rich.console import Console

from minisora.config import Config, SampleConfig, override
from minisora.errors import UserError
from minisora.flops.count_closed_form import count_closed_form, dit_terms, optimizer_flops
from minisora.flops.ledger import count_config, video_cost

SMALL = [
    "dit.width=32",
    "dit.depth=2",
    "dit.heads=2",
    "text.width=16",
    "text.heads=2",
    "vae.widths=[8,12]",
    "clip.frames=5",
    "clip.height=32",
    "clip.width=48",
]


def small(*more: str) -> Config:
    return override(Config(), [*SMALL, *more])


def test_json_keeps_the_interface():
    written = json.loads(json.dumps(count_config(small()).to_dict()))
    forward = written["forward"]
    assert forward["flops"] == 2 * forward["macs"]
    assert set(forward["counts"]) == {"fvcore_macs", "torch_macs", "closed_form_macs"}
    assert set(forward["counts"].values()) == {forward["macs"]}
    assert forward["max_disagreement"] == 0
    assert forward["by_module"]["all"] == forward["macs"]
    assert forward["by_module"]["blocks.0"] + forward["by_module"]["blocks.1"] < forward["macs"]
    assert sum(forward["by_group"].values()) == forward["macs"]
    step = written["train_step"]
    assert step["ratio_to_forward"] == pytest.approx(step["flops"] / forward["flops"])
    assert step["flops"] == forward["flops"] + step["backward_flops"]
    assert written["tokens"] == 2 * 2 * 3
    assert written["device"]["type"] == "meta"
    assert set(written["components"]) == {"dit", "vae_encode", "vae_decode", "text_encoder"}


def test_meta_and_cpu_and_any_batch_count_the_same():
    meta = count_config(small(), cases=()).to_dict()
    cpu = count_config(small(), cases=(), device="cpu", batch=3).to_dict()
    for written in (meta, cpu):
        written.pop("device")
        for row in (written["forward"], *written["components"].values()):
            # Position tables are made once a batch.
            row.pop("elementwise_operations")
    assert meta == cpu


def test_cases_are_ordered_as_theory_says():
    cases = {name: case.ratio for name, case in count_config(small()).cases.items()}
    assert cases["frozen_input"] < cases["plain"] < cases["input_gradient"] < cases["checkpointed"]
    assert 2.8 < cases["plain"] < 3.5
    assert cases["checkpointed"] - cases["plain"] == pytest.approx(1, abs=0.1)


def test_checkpointing_config_is_counted_as_it_trains():
    ledger = count_config(small("dit.checkpointing=true"), cases=())
    assert set(ledger.cases) == {"checkpointed"}
    assert ledger.to_dict()["train_step"]["recompute_flops"] > 0.9 * 2 * ledger.dit.macs


def test_attention_grows_with_the_square_of_full_and_not_of_factorised_tokens():
    def quadratic(attention: str, frames: int) -> int:
        config = small(f"dit.attention={attention}", "dit.text_conditioning=false")
        terms = dit_terms(config, (frames, 4, 6), text_width=None, text_tokens=0)
        return count_closed_form(terms).by_operator()["attention_quadratic"]

    assert quadratic("full", 8) == 16 * quadratic("full", 2)
    assert quadratic("factorised", 8) < 0.5 * 16 * quadratic("factorised", 2)


@pytest.mark.slow
def test_twenty_billion_parameters_need_no_memory():
    ledger = count_config(
        override(
            Config(),
            [
                "dit.width=5120",
                "dit.depth=42",
                "dit.heads=40",
                "clip.frames=1441",
                "clip.height=512",
                "clip.width=512",
            ],
        ),
        cases=(),
    )
    assert ledger.dit.params > 20e9
    assert ledger.tokens == 361 * 32 * 32
    assert ledger.dit.agreement.max_disagreement == 0
    assert ledger.dit.groups["attention_quadratic"] / ledger.dit.macs > 0.8


def test_the_table_prints():
    console = Console(record=True, width=120)
    console.print(count_config(small()).table())
    text = console.export_text()
    for expected in ("attention quadratic", "VAE decode", "checkpointed", "12 tokens", "guidance 3"):
        assert expected in text


@pytest.mark.parametrize(("width", "unit"), [(32, "M"), (1024, "G")])
def test_the_table_has_a_unit_in_which_no_row_is_nothing(width: int, unit: str):
    ledger = count_config(small(f"dit.width={width}", "dit.depth=8"), cases=())
    console = Console(record=True, width=120)
    console.print(ledger.table())
    text = console.export_text()
    assert f" {unit}MACs " in text
    assert f" {unit}FLOPs " in text
    rows = dict(re.findall(r"│ +([\w ]+?) +│ +([\d,.]+) │ +[\d,.]+ │", text))
    size = {"M": 1e6, "G": 1e9}[unit]
    for name, macs in ledger.dit.groups.items():
        assert float(rows[name.replace("_", " ")].replace(",", "")) == pytest.approx(macs / size, rel=0.05)
    assert float(rows["VAE decode"].replace(",", "")) == pytest.approx(
        ledger.components["vae_decode"].macs / size, rel=0.05
    )


def test_a_clip_that_does_not_fit_is_refused():
    with pytest.raises(UserError, match="use 5 or 9"):
        count_config(small("clip.frames=6"))


def test_default_dtype_is_put_back():
    count_config(small(), cases=(), dtype=torch.bfloat16)
    assert torch.get_default_dtype() == torch.float32


def test_video_cost_counts_every_pass():
    macs = {"dit": 100, "vae_decode": 7, "text_encoder": 3}
    guided = video_cost(SampleConfig(steps=10, guidance=3.0), macs)
    assert (guided.passes, guided.step_flops) == (20, 400)
    assert guided.flops == 20 * 200 + 2 * 7 + 2 * 2 * 3
    heun = video_cost(SampleConfig(steps=10, guidance=1.0, scheduler="heun"), macs)
    assert (heun.passes, heun.passes_per_step) == (19, 1)
    assert video_cost(SampleConfig(guidance=3.0), {"dit": 1, "vae_decode": 1}).passes_per_step == 1


def test_optimizer_column():
    assert optimizer_flops(100) == 2000
    assert optimizer_flops(100, clip=False, ema=False) == 1400
