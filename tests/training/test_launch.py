"""Training with the repeated block compiled: the same losses, whatever the sizes of clips."""

import io
from functools import partialmethod
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import nn
from torch._dynamo.exc import TorchDynamoException

from minisora.config import load
from minisora.errors import UserError
from minisora.models.build import selective_checkpoint
from minisora.models.dit import VideoDiT
from minisora.run_metrics import read_metrics
from minisora.training.launch import compile_blocks, explained, missing_compiler
from minisora.training.stages import train_dit

BUCKET = "data.buckets=[{frames: 5, height: 16, width: 32, share: 1}]"
CPU = torch.device("cpu")
needs_compiler = pytest.mark.skipif(missing_compiler(CPU) is not None, reason=str(missing_compiler(CPU)))


def tiny_dit() -> VideoDiT:
    return VideoDiT(4, (1, 2, 2), width=32, depth=2, heads=2)


@pytest.fixture
def without_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs as inductor gets them, forward and backward, of each shape; but run by torch, and not made into C++."""
    as_graphs = partialmethod(nn.Module.compile, backend="aot_eager_decomp_partition")
    monkeypatch.setattr(nn.Module, "compile", as_graphs)


@pytest.mark.slow
def test_a_compiled_stage_has_the_losses_of_one_that_is_not(
    tiny_config_file: Path,
    tiny_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    without_code: None,
) -> None:
    monkeypatch.setattr("minisora.training.launch.missing_compiler", lambda device: None)
    losses = {}
    for compiled in ("false", "true"):
        settings = ["steps=4", "precision=fp32", f"compile={compiled}"]
        settings = [*(f"train_dit.{each}" for each in settings), "flow.known_share=0.5", BUCKET]
        config, run = load(tiny_config_file, settings), tmp_path / compiled
        shown = io.StringIO()
        train_dit(config, run, Console(file=shown), tiny_run / "vae" / "model")
        assert ("DiTBlocks compiled" in shown.getvalue()) == (compiled == "true")
        losses[compiled] = [row["loss"] for row in read_metrics(run / "metrics.jsonl") if "loss" in row]
    assert len(losses["true"]) == 4
    assert losses["true"] == pytest.approx(losses["false"], rel=1e-4)


@pytest.mark.slow
@needs_compiler
def test_only_the_blocks_are_compiled_and_names_stay() -> None:
    _compiled_as_written("none")


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", ["full", "selective"])
def test_compiled_blocks_are_computed_again_where_they_are_to_be(
    checkpointing: str, monkeypatch: pytest.MonkeyPatch, without_code: None
) -> None:
    monkeypatch.setattr("minisora.training.launch.missing_compiler", lambda device: None)
    _compiled_as_written(checkpointing)


def _compiled_as_written(checkpointing: str) -> None:
    """Blocks give, compiled, the outputs and gradients that they give as they are written."""
    torch.manual_seed(0)
    dit = tiny_dit()
    if checkpointing != "none":
        dit.enable_gradient_checkpointing(selective_checkpoint if checkpointing == "selective" else None)
    names = list(dit.state_dict())
    latents, sigma = torch.randn(2, 4, 3, 4, 4), torch.rand(2)
    dit.head.weight.data.normal_()  # zero at first, and nothing would tell the blocks' results apart
    plain = dit(latents, sigma)
    plain.square().mean().backward()
    expected = {name: p.grad.clone() for name, p in dit.named_parameters() if p.grad is not None}
    dit.zero_grad()

    assert compile_blocks(dit, "DiTBlock", CPU).startswith("2 DiTBlocks compiled")
    assert list(dit.state_dict()) == names
    assert [type(m).__name__ for m in dit.modules() if m._compiled_call_impl is not None] == ["DiTBlock"] * 2
    found = dit(latents, sigma)
    torch.testing.assert_close(found, plain, atol=1e-4, rtol=1e-4)
    found.square().mean().backward()
    for name, parameter in dit.named_parameters():
        if name in expected:
            torch.testing.assert_close(parameter.grad, expected[name], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("missing", ["C++ compiler", "headers"])
def test_without_a_compiler_training_goes_on_as_written(
    missing: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    which = None if missing == "C++ compiler" else "/usr/bin/g++"
    monkeypatch.setattr("minisora.training.launch.shutil.which", lambda _: which)
    monkeypatch.setattr("minisora.training.launch.sysconfig.get_paths", lambda: {"include": str(tmp_path)})
    dit = tiny_dit()
    assert missing in compile_blocks(dit, "DiTBlock", CPU)
    assert all(module._compiled_call_impl is None for module in dit.modules())


def test_a_graph_that_cannot_be_made_says_what_to_do() -> None:
    said = r"file too short.*delete .*or set train_dit\.compile=false"
    with pytest.raises(UserError, match=said), explained("dit"):
        raise TorchDynamoException("ImportError: main.so: file too short\n more")
