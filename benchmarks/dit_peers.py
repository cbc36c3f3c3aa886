"""VideoDiT beside two diffusers transformers of equal width, depth, tokens and text, timed A B A B in one run.

    python benchmarks/dit_peers.py --json benchmarks/results/dit-peers_MACHINE_DATE.json
    python benchmarks/dit_peers.py --quick                  # about a minute
    python benchmarks/dit_peers.py --compile                # the repeated block of each compiled

factorised  VideoDiT (blocks in turn over a frame and through time)  beside  LatteTransformer3DModel
full        VideoDiT (every token sees every other)                  beside  CogVideoXTransformer3DModel

Each pair runs a forward pass and a train step (forward, backward, AdamW) on the same latents and text, in
float32 and, where the CPU has bfloat16 units, under bfloat16 autocast. Weights stay float32.

How to read it. Equal width, depth and tokens do not make equal work, so two figures are given: steps per
second, which is what a user waits for, and GFLOP/s, which is how well the arithmetic is done. "of peak" is the
latter over that of large matrix products on this machine in the same format. The designs differ in work so:
  VideoDiT    cross-attends to the text in every block; each block has a modulation of its own.
  Latte       cross-attends in the spatial blocks only, to text repeated for each frame; modulation is shared.
  CogVideoX   has no cross-attention: text tokens run through every block beside the video's.
Train steps in bfloat16: torch's fused attention has a slow backward on a CPU, which VideoDiT goes round
(minisora.models.dit), so each peer is timed twice: as it comes, and "unfused", with torch's open kernel.
"as each comes" is what users get who set nothing: minisora picks bfloat16 where this CPU has units for it,
diffusers stays in float32. Nothing is compiled without --compile, which does to each model's repeated block what
minisora's training does with `compile: true` (and diffusers' own compile_repeated_blocks).
"""

import argparse
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import torch
from diffusers import CogVideoXTransformer3DModel, LatteTransformer3DModel
from interleave import Work, autocast, compare, facts, measured_peaks, precisions, show, write
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from minisora.flops.count_torch import StepCount, count_step
from minisora.models.dit import VideoDiT
from minisora.training.launch import compile_blocks

# Latents: with patch 1x2x2, 5 x 8 x 8 = 320 tokens.
CHANNELS, FRAMES, SIDE = 12, 5, 16
WIDTH, DEPTH, HEADS = 256, 8, 4
TEXT_TOKENS, TEXT_WIDTH = 24, 128

Forward = Callable[[Tensor, Tensor, Tensor], Tensor]  # latents B C T H W, sigma B, text B M W -> B C T H W


def ours(attention: str) -> tuple[nn.Module, Forward]:
    model = VideoDiT(CHANNELS, (1, 2, 2), WIDTH, DEPTH, HEADS, attention=attention, text_width=TEXT_WIDTH)

    def forward(latents: Tensor, sigma: Tensor, text: Tensor) -> Tensor:
        mask = torch.ones(text.shape[:2], dtype=torch.bool)
        return model(latents, sigma, text, mask, text.mean(1))

    return model, forward


def latte() -> tuple[nn.Module, Forward]:
    # Settings of the released Latte-XL/2, but for the size.
    model = LatteTransformer3DModel(
        num_attention_heads=HEADS,
        attention_head_dim=WIDTH // HEADS,
        # One layer is a spatial and a temporal block.
        num_layers=DEPTH // 2,
        sample_size=SIDE,
        patch_size=2,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        norm_type="ada_norm_single",
        caption_channels=TEXT_WIDTH,
        cross_attention_dim=WIDTH,
        video_length=FRAMES,
        attention_bias=True,
        norm_elementwise_affine=False,
        norm_eps=1e-6,
        activation_fn="gelu-approximate",
    )

    def forward(latents: Tensor, sigma: Tensor, text: Tensor) -> Tensor:
        return model(latents, timestep=1000 * sigma, encoder_hidden_states=text).sample

    return model, forward


def cogvideox() -> tuple[nn.Module, Forward]:
    # Those of CogVideoX-2b, with its positions (sinusoids), but for the size.
    model = CogVideoXTransformer3DModel(
        num_attention_heads=HEADS,
        attention_head_dim=WIDTH // HEADS,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        text_embed_dim=TEXT_WIDTH,
        num_layers=DEPTH,
        sample_width=SIDE,
        sample_height=SIDE,
        # Counted in frames of the video.
        sample_frames=4 * (FRAMES - 1) + 1,
        max_text_seq_length=TEXT_TOKENS,
    )

    def forward(latents: Tensor, sigma: Tensor, text: Tensor) -> Tensor:
        velocity = model(latents.transpose(1, 2), text, 1000 * sigma).sample  # B T C H W
        return velocity.transpose(1, 2)

    return model, forward


PAIRS = {
    "factorised": {"VideoDiT": lambda: ours("factorised"), "Latte": latte},
    "full": {"VideoDiT": lambda: ours("full"), "CogVideoX": cogvideox},
}
# Class of the repeated layer.
BLOCKS = {"VideoDiT": "DiTBlock", "Latte": "BasicTransformerBlock", "CogVideoX": "CogVideoXBlock"}


class Contender:
    """A model with its optimizer, the batch that all contenders share, and its FLOPs; `block` is compiled if given."""

    def __init__(self, build: Callable[[], tuple[nn.Module, Forward]], batch: int, block: str | None = None):
        torch.manual_seed(0)
        self.model, self.forward = build()
        self.params = sum(p.numel() for p in self.model.parameters())
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=True)
        draw = torch.Generator().manual_seed(1)
        size = (batch, CHANNELS, FRAMES, SIDE, SIDE)
        self.latents, self.target = torch.randn(2, *size, generator=draw)
        self.sigma = torch.rand(batch, generator=draw)
        self.text = torch.randn(batch, TEXT_TOKENS, TEXT_WIDTH, generator=draw)
        self.model.train()
        self.count: StepCount = count_step(self.loss)
        self.optimizer.zero_grad()
        if block is not None:
            compile_blocks(self.model, block, torch.device("cpu"))

    def predict(self) -> Tensor:
        return self.forward(self.latents, self.sigma, self.text)

    def loss(self) -> Tensor:
        return (self.predict().float() - self.target).square().mean()

    def forward_work(self, precision: str) -> Work:
        def run() -> None:
            with torch.no_grad(), autocast(precision):
                self.predict()

        return Work(run, self.count.forward_flops)

    def step_work(self, precision: str, unfused: bool = False) -> Work:
        def run() -> None:
            with sdpa_kernel(SDPBackend.MATH) if unfused else nullcontext():
                with autocast(precision):
                    loss = self.loss()
                loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad()

        return Work(run, self.count.model_flops)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="2 rounds after 1 of warm-up; the ranges are wide"
    )
    parser.add_argument("--rounds", type=int, help="timed rounds of each comparison (default 15; quick 2)")
    parser.add_argument("--batch", type=int, default=8, help="clips a step (default 8)")
    parser.add_argument(
        "--precision",
        nargs="+",
        choices=("fp32", "bf16"),
        default=precisions(),
        help="formats to time (default: fp32, and bf16 where this CPU has units for it)",
    )
    parser.add_argument("--compile", action="store_true", help="compile the repeated block of every model")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write everything there, atomically")
    arguments = parser.parse_args()
    rounds = arguments.rounds or (2 if arguments.quick else 15)
    warmup = 1 if arguments.quick else 2
    result = facts()
    peaks = measured_peaks(arguments.precision)
    rows, models = [], []
    for pair, builders in PAIRS.items():
        contenders = {
            name: Contender(build, arguments.batch, BLOCKS[name] if arguments.compile else None)
            for name, build in builders.items()
        }
        mine, peer = contenders["VideoDiT"], next(name for name in contenders if name != "VideoDiT")
        models += [
            {"attention": pair, "model": name, "params": one.params} for name, one in contenders.items()
        ]
        for precision in arguments.precision:
            for what, work in (("forward", Contender.forward_work), ("train step", Contender.step_work)):
                works = {name: work(one, precision) for name, one in contenders.items()}
                if what == "train step" and precision == "bf16":
                    works[f"{peer}, unfused"] = contenders[peer].step_work(precision, unfused=True)
                rows += compare(f"{pair}, {what}", works, precision, rounds, warmup)
        if "bf16" in arguments.precision:
            works = {"VideoDiT": mine.step_work("bf16"), peer: contenders[peer].step_work("fp32")}
            rows += compare(f"{pair}, train step as each comes", works, "bf16", rounds, warmup)
    tokens = FRAMES * (SIDE // 2) ** 2
    title = f"width {WIDTH}, {DEPTH} blocks, {tokens} tokens, {TEXT_TOKENS} of text, batch {arguments.batch}"
    show(title, rows, peaks)
    for each in models:
        print(f"{each['attention']:12} {each['model']:12} {each['params'] / 1e6:6.2f} M parameters")
    if arguments.json:
        settings = {
            "batch": arguments.batch,
            "rounds": rounds,
            "quick": arguments.quick,
            "compile": arguments.compile,
            "latents": [CHANNELS, FRAMES, SIDE, SIDE],
            "tokens": tokens,
            "text_tokens": TEXT_TOKENS,
            "width": WIDTH,
            "blocks": DEPTH,
            "heads": HEADS,
        }
        peaks_named = {f"{name}_flops_per_s": peak for name, peak in peaks.items()}
        write(
            arguments.json,
            {**result, "settings": settings, "peak": peaks_named, "models": models, "rows": rows},
        )


if __name__ == "__main__":
    main()
