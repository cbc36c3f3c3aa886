"""Memory that `minisora plan` tells beside what torch keeps: our DiT and tiny video transformers of diffusers, CPU.

    python benchmarks/plan_memory.py --json benchmarks/results/plan-memory_MACHINE_DATE.json
    python benchmarks/plan_memory.py --decoders
    python benchmarks/plan_memory.py --card --json benchmarks/results/CARD/plan_memory.json

Measured is the peak of a step of training: weights, gradients and AdamW's moments, which are there before, and every
tensor that is alive while a forward and a backward pass run beside them (`minisora.flops.live_memory`), in float32. The
planner is told the shape, the number of weights and the clip, and nothing else.

On a CUDA card (--card) activations alone are compared, of larger cases, in float32 and in bfloat16: the most that its
allocator holds in a step beyond weights and gradients.

On fake tensors, of which the planner's tables are made (--decoders): numbers alive at the peak of a pass without
gradients, for each token and channel, and of VAE decoders, for each pixel of the picture.
"""

import argparse
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from interleave import facts, write
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from minisora.config import load
from minisora.flops.count_module import INPUTS
from minisora.flops.device import built_on
from minisora.flops.live_memory import LiveMemory, training_peak
from minisora.flops.passes import dit_pass
from minisora.models.build import build_dit
from minisora.plan.blocks import COGVIDEOX, HUNYUAN, LTX, OWN, WAN, BlockCode
from minisora.plan.foreign import decode_on_fakes
from minisora.plan.question import Precision, ask, card_named
from minisora.plan.spending import Numbers, spend
from minisora.plan.subject import Subject, of_size
from minisora.report.cost import TransformerShape

TEXT_WIDTH = 32


@dataclass(frozen=True)
class Case:
    """A model and a clip: blocks, heads of so many channels, latents (frames, height, width), tokens of the prompt."""

    model: str
    layers: int
    heads: int
    head_width: int
    hidden_ratio: int
    latents: tuple[int, int, int]
    text_tokens: int = 16
    batch: int = 1
    checkpointing: bool = False

    @property
    def width(self) -> int:
        return self.heads * self.head_width


CASES = (
    Case("VideoDiT", 4, 4, 32, 4, (5, 16, 16)),
    Case("VideoDiT", 2, 8, 32, 4, (5, 16, 24)),
    Case("VideoDiT", 6, 4, 32, 2, (3, 16, 16), batch=4),
    Case("VideoDiT", 6, 4, 32, 4, (5, 16, 16), checkpointing=True),
    Case("VideoDiT", 3, 2, 64, 8, (9, 8, 16), text_tokens=64, batch=2),
    Case("WanTransformer3DModel", 4, 4, 32, 4, (5, 16, 16)),
    Case("WanTransformer3DModel", 2, 4, 64, 4, (5, 16, 24)),
    Case("WanTransformer3DModel", 3, 4, 32, 2, (3, 16, 16), batch=4),
    Case("WanTransformer3DModel", 6, 4, 32, 4, (5, 16, 16), checkpointing=True),
    Case("WanTransformer3DModel", 3, 2, 64, 8, (9, 8, 16), text_tokens=64, batch=2),
    Case("CogVideoXTransformer3DModel", 4, 4, 32, 4, (5, 16, 16)),
    Case("CogVideoXTransformer3DModel", 2, 4, 64, 4, (5, 16, 24)),
    Case("CogVideoXTransformer3DModel", 3, 4, 32, 4, (3, 16, 16), batch=4),
    Case("CogVideoXTransformer3DModel", 6, 4, 32, 4, (5, 16, 16), checkpointing=True),
    Case("CogVideoXTransformer3DModel", 3, 2, 64, 4, (9, 8, 16), text_tokens=64, batch=2),
    Case("LTXVideoTransformer3DModel", 4, 4, 32, 4, (5, 8, 8)),
    Case("LTXVideoTransformer3DModel", 2, 4, 64, 4, (5, 8, 12)),
    Case("LTXVideoTransformer3DModel", 3, 4, 32, 4, (3, 8, 8), batch=4),
    Case("LTXVideoTransformer3DModel", 6, 4, 32, 4, (5, 8, 8), checkpointing=True),
    Case("LTXVideoTransformer3DModel", 3, 2, 64, 4, (9, 8, 8), text_tokens=64, batch=2),
)
CODES: dict[str, BlockCode] = {
    "VideoDiT": OWN,
    "WanTransformer3DModel": WAN,
    "CogVideoXTransformer3DModel": COGVIDEOX,
    "LTXVideoTransformer3DModel": LTX,
    "HunyuanVideoTransformer3DModel": HUNYUAN,
}


# Large beside what libraries take for themselves.
ON_A_CARD = tuple(
    Case(model, 4, 16, 64, 4, (9, 32, 32), text_tokens=64, checkpointing=checkpointing)
    for model in (
        "VideoDiT",
        "WanTransformer3DModel",
        "CogVideoXTransformer3DModel",
        "LTXVideoTransformer3DModel",
    )
    for checkpointing in (False, True)
)


def build(
    case: Case, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> tuple[nn.Module, Callable[[], Tensor]]:
    """The model of a case, and a loss of one pass."""
    if case.model == "VideoDiT":
        config = load(
            "toy",
            [
                f"dit.width={case.width}",
                f"dit.heads={case.heads}",
                f"dit.depth={case.layers}",
                f"dit.mlp_ratio={case.hidden_ratio}",
                f"text.max_tokens={case.text_tokens}",
                f"text.width={TEXT_WIDTH}",
            ],
        )
        with built_on(device, dtype):
            dit = build_dit(config, TEXT_WIDTH)
        if case.checkpointing:
            dit.enable_gradient_checkpointing()
        part = dit_pass(
            config, dit, case.latents, text_width=TEXT_WIDTH, batch=case.batch, device=device, dtype=dtype
        )
        return dit, part.loss
    import diffusers

    shapes_of = INPUTS[case.model][2]
    # Made in that format: fake tensors cannot be cast.
    with built_on(device, dtype):
        model = getattr(diffusers, case.model)(**settings(case))
        shapes = shapes_of(model.config, case.latents, case.text_tokens)
        inputs = {name: _real(value, case.batch, dtype) for name, value in shapes.items()}
    if case.checkpointing:
        model.enable_gradient_checkpointing()

    def loss() -> Tensor:
        return model(**inputs, return_dict=False)[0].square().mean()

    return model, loss


def settings(case: Case) -> dict[str, Any]:
    """Arguments of diffusers' class."""
    shape = {"num_attention_heads": case.heads, "attention_head_dim": case.head_width}
    if case.model.startswith("Hunyuan"):
        single = case.layers - case.layers // 3
        layers = {"num_layers": case.layers - single, "num_single_layers": single, "num_refiner_layers": 1}
        return {**shape, **layers, "text_embed_dim": TEXT_WIDTH, "pooled_projection_dim": TEXT_WIDTH}
    if case.model.startswith("Wan"):
        return {
            **shape, "num_layers": case.layers, "ffn_dim": case.hidden_ratio * case.width, "text_dim": TEXT_WIDTH,
            "freq_dim": 32,
        }  # fmt: skip
    if case.model.startswith("LTX"):
        return {
            **shape, "num_layers": case.layers, "cross_attention_dim": case.width, "caption_channels": TEXT_WIDTH
        }  # fmt: skip
    frames, height, width = case.latents
    return {
        **shape, "num_layers": case.layers, "text_embed_dim": TEXT_WIDTH, "time_embed_dim": 32,
        "max_text_seq_length": case.text_tokens, "sample_frames": 4 * frames - 3, "sample_height": height,
        "sample_width": width,
    }  # fmt: skip


def _real(value: Any, batch: int, dtype: torch.dtype = torch.float32) -> Any:
    if not isinstance(value, Tensor):
        return value
    shape = (batch * value.shape[0], *value.shape[1:])
    if value.is_floating_point():
        return torch.randn(shape).to(dtype)
    return torch.ones(shape, dtype=value.dtype)


def subject_of(case: Case, params: int) -> Subject:
    """The same model as the planner sees it: latents are its pixels."""
    patch = (1, 1, 1) if case.model.startswith("LTX") else (1, 2, 2)
    joint = case.model.startswith(("Cog", "Hunyuan"))
    shape = TransformerShape(
        layers=case.layers,
        width=case.width,
        hidden=case.hidden_ratio * case.width,
        text_tokens=case.text_tokens,
        text="joint" if joint else "cross",
        patch_values=patch[1] * patch[2] * 16,
    )
    return replace(
        of_size(1e9), name=case.model, shape=shape, heads=case.heads, params=float(params), vae=(1, 1, 1),
        causal=False, patch=patch, code=CODES[case.model], clip=case.latents,
    )  # fmt: skip


def predict(case: Case, params: int, precision: Precision = "float32") -> Numbers:
    """Bytes of a step by the planner."""
    question = ask(
        subject_of(case, params),
        card=card_named("h100 sxm"),
        precision=precision,
        batch=case.batch,
        train=True,
        checkpointing="full" if case.checkpointing else "none",
    )
    return spend(question.subject, question.inputs(1.0, 1.0, 0.0))


def compare(case: Case) -> dict[str, Any]:
    """Predicted beside measured bytes."""
    torch.manual_seed(0)
    model, loss = build(case)
    params = sum(parameter.numel() for parameter in model.parameters())
    numbers = predict(case, params)
    # No average of the weights is kept here.
    measured, predicted = (
        training_peak(model, loss),
        float(numbers["train_memory"] - numbers["train_average"]),
    )
    return {
        **asdict(case),
        "params": params,
        "fixed_bytes": 16 * params,
        "measured_bytes": measured,
        "predicted_bytes": round(predicted),
        "predicted_over_measured": predicted / measured,
    }


def compare_on_a_card(case: Case, precision: Precision) -> dict[str, Any]:
    """Predicted beside measured bytes of the activations of a step."""
    torch.manual_seed(0)
    model, loss = build(case, "cuda", getattr(torch, precision))
    params = sum(parameter.numel() for parameter in model.parameters())
    # Gradients, and what libraries keep, are there before.
    loss().backward()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    loss().backward()
    measured = torch.cuda.max_memory_allocated() - before
    predicted = float(predict(case, params, precision)["train_activations"])
    return {
        **asdict(case),
        "precision": precision,
        "measured_bytes": measured,
        "predicted_bytes": round(predicted),
        "predicted_over_measured": predicted / measured,
    }


def pass_units(name: str) -> dict[str, Any]:
    """What a pass without gradients holds, in bfloat16 numbers for each token and channel; on fake tensors."""
    import diffusers

    case = Case(name, 3, 8, 64 if name.startswith(("Cog", "LTX")) else 128, 4, (9, 32, 32), 64)
    arguments = settings(case)
    if name.startswith("Cog"):
        arguments["use_rotary_positional_embeddings"] = True
    with FakeTensorMode(allow_non_fake_inputs=True):
        with built_on("cpu", torch.bfloat16):
            model = getattr(diffusers, name)(**arguments)
        shapes = INPUTS[name][2](model.config, case.latents, case.text_tokens)
        inputs = {key: _real(value, 1, torch.bfloat16) for key, value in shapes.items()}
        tokens = 9 * 32 * 32 // (1 if name.startswith("LTX") else 4)
        if name.startswith("Cog"):
            inputs["image_rotary_emb"] = (torch.zeros(tokens, 64), torch.zeros(tokens, 64))
        memory = LiveMemory(model)
        memory.hold(value for value in inputs.values() if isinstance(value, Tensor))
        before = memory.now
        with memory, torch.no_grad():
            model(**inputs, return_dict=False)
    rows = tokens + (case.text_tokens if CODES[name] in (COGVIDEOX, HUNYUAN) else 0)
    code = CODES[name]
    told = max(code.pass_width, code.pass_rest + code.pass_hidden * case.hidden_ratio)
    return {"model": name, "units": (memory.peak - before) / 2 / rows / case.width, "told": told}


def kept_of_a_vae(name: str, frames: int) -> float:
    """Numbers of bfloat16 that autograd keeps of encoding and decoding a clip, for each pixel; on fake tensors."""
    import diffusers

    arguments, _ = DECODERS[name]
    with FakeTensorMode(allow_non_fake_inputs=True):
        with built_on("cpu", torch.bfloat16):
            vae = getattr(diffusers, name)(**arguments)
        memory = LiveMemory(vae)
        video = torch.zeros(1, 3, frames, 64, 64, dtype=torch.bfloat16)
        memory.hold([video])
        before = memory.now
        with memory:
            loss = vae.decode(vae.encode(video).latent_dist.mode()).sample.mean()
            # As long as the loss is there, what its gradient needs is.
            kept = memory.now - before
        del loss
    return kept / video.element_size() / (64 * 64)


COGVIDEOX_VAE = {
    "block_out_channels": (128, 256, 256, 512), "layers_per_block": 3, "latent_channels": 16,
    "down_block_types": ("CogVideoXDownBlock3D",) * 4, "up_block_types": ("CogVideoXUpBlock3D",) * 4,
}  # fmt: skip
DECODERS = {
    "AutoencoderKLWan": ({}, 16),
    "AutoencoderKLCogVideoX": (COGVIDEOX_VAE, 16),
    "AutoencoderKLHunyuanVideo": ({}, 16),
    "AutoencoderKLLTXVideo": ({}, 128),
    "AutoencoderKLMochi": ({}, 12),
    "AutoencoderKLCosmos": ({}, 16),
}


# In which its makers run it; others run in bfloat16.
FORMATS = {"AutoencoderKLWan": torch.float32}


def decoder(name: str, latents: tuple[int, int, int]) -> dict[str, Any]:
    """Numbers alive at the peak of decoding, for each pixel of the picture, the video that comes out left out."""
    arguments, channels = DECODERS[name]
    (frames, _, _), values = decode_on_fakes(
        name, arguments, (channels, *latents), FORMATS.get(name, torch.bfloat16)
    )
    return {"decoder": name, "latents": latents, "frames": frames, "values_per_picture_pixel": values}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the numbers there")
    parser.add_argument(
        "--decoders", action="store_true", help="only the decoders, and passes without gradients"
    )
    parser.add_argument("--card", action="store_true", help="only activations, on a CUDA card")
    arguments = parser.parse_args()
    if arguments.card:
        precisions: tuple[Precision, ...] = ("float32", "bfloat16")
        cards = [compare_on_a_card(case, precision) for case in ON_A_CARD for precision in precisions]
        for row in cards:
            print(f"{row['model']} {row['precision']} {row['predicted_over_measured']:.3f}")
        if arguments.json:
            write(arguments.json, {**facts(), "card": torch.cuda.get_device_name(0), "steps": cards})
        return
    passes = [pass_units(name) for name in CODES if name in INPUTS]
    for row in passes:
        print(f"{row['model']:32} {row['units']:.2f} units, told {row['told']:.2f}", flush=True)
    decoders: list[dict[str, Any]] = []
    vaes: list[dict[str, Any]] = []
    for name in DECODERS:
        vaes.append({"vae": name, "frames": 33, "kept_of_a_pixel": kept_of_a_vae(name, 33) / 33})
        print(f"{name:28} keeps {vaes[-1]['kept_of_a_pixel']:,.0f} numbers of a pixel", flush=True)
        for latents in ((3, 8, 8), (5, 8, 8)):
            decoders.append(decoder(name, latents))
            print(
                f"{name:28} {latents} {decoders[-1]['values_per_picture_pixel']:10,.0f} numbers", flush=True
            )
    rows = []
    for case in () if arguments.decoders else CASES:
        rows.append(compare(case))
        print(f"{case} {rows[-1]['predicted_over_measured']:.3f}", flush=True)
    if arguments.json:
        within = sum(abs(row["predicted_over_measured"] - 1) <= 0.15 for row in rows)
        write(
            arguments.json,
            {
                **facts(),
                "within_15_percent": within,
                "steps": rows,
                "passes": passes,
                "decoders": decoders,
                "vaes": vaes,
            },
        )


if __name__ == "__main__":
    main()
