"""Text to video in one file: a world, an autoencoder, and a transformer that denoises latents. Nothing of minisora.

    python scripts/one_file.py    # writes one_file.gif, for five minutes of one core

Letters: B clips, T frames, H x W pixels; t x h x w latent cells of C numbers; N tokens of D; sigma: 1 is noise, 0 data.
"""

import argparse
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor, nn

FRAMES, SIDE, CELL, PATCH, CHANNELS = 8, 32, (2, 4, 4), (1, 2, 2), 8  # pixels of a cell, cells of a token
COLORS = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1), "yellow": (1, 1, 0)}
SHAPES = ("circle", "square", "triangle")
WAYS = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}  # y, x
WORDS = ["", "a", "moving", *COLORS, *SHAPES, *WAYS]  # the empty word: nothing is asked
CAPTIONS = [f"a {a} {b} moving {c}" for a in COLORS for b in SHAPES for c in WAYS]
SHOWN = [CAPTIONS[12 * i + 4 * j + (i + j) % 4] for j in range(3) for i in range(4)]


# 1. The world: a coloured shape crosses a dark frame at constant speed. Place, size and speed are left to chance.
def render(captions: Sequence[str], rng: np.random.Generator) -> Tensor:  # B 3 T H W in [-1, 1]
    clips = []
    for _, color, shape, _, way in map(str.split, captions):
        radius, travel = SIDE * rng.uniform(0.145, 0.165), SIDE * rng.uniform(0.36, 0.5)  # pixels
        step = np.array(WAYS[way])  # 2
        room = SIDE / 2 - 1.45 * radius - travel / 2 * abs(step)  # 2, how far off the middle its path may lie
        middle = (SIDE - 1) / 2 + rng.uniform(-room, room)  # 2
        path = middle + travel * step * np.linspace(-0.5, 0.5, FRAMES)[:, None]  # T 2
        y = np.arange(SIDE)[:, None] - path[:, 0, None, None]  # T H 1, pixels below the shape's centre
        x = np.arange(SIDE) - path[:, 1, None, None]  # T 1 W
        inside = {
            "circle": radius - np.hypot(y, x),
            "square": 0.886 * radius - np.maximum(abs(y), abs(x)),
            "triangle": np.minimum(0.722 * radius - y, 0.722 * radius + y / 2 - 0.866 * abs(x)),
        }[shape]  # T H W, pixels to the nearest edge
        cover = np.clip(inside + 0.5, 0, 1)  # T H W, the share of each pixel that the shape covers
        clips.append(0.1 + cover * (np.array(COLORS[color]) - 0.1)[:, None, None, None])  # 3 T H W in [0, 1]
    return torch.tensor(2 * np.stack(clips) - 1, dtype=torch.float32)


def tokenize(captions: Sequence[str]) -> Tensor:  # B 5, the number of each word
    return torch.tensor([[WORDS.index(word) for word in caption.split()] for caption in captions])


# 2. The autoencoder: the 96 numbers of a cell become 8, of mean 0 and deviation 1, and learn to bear a little noise.
class Mix(nn.Sequential):
    def __init__(self, width: int) -> None:
        conv = nn.Conv3d(width, width, (1, 3, 3), padding=(0, 1, 1))
        super().__init__(nn.GroupNorm(8, width), conv, nn.SiLU(), nn.Conv3d(width, width, 1))

    def forward(self, x: Tensor) -> Tensor:  # B D t h w -> B D t h w
        return x + super().forward(x)


class Autoencoder(nn.Module):
    def __init__(self, width: int = 64) -> None:
        super().__init__()
        first, last = nn.Conv3d(3, width, CELL, CELL), nn.ConvTranspose3d(width, 3, CELL, CELL)
        narrow, wide = nn.Conv3d(width, CHANNELS, 1), nn.Conv3d(CHANNELS, width, 1)
        whiten = nn.BatchNorm3d(CHANNELS, affine=False)
        self.encode = nn.Sequential(first, Mix(width), Mix(width), narrow, whiten)
        self.decode = nn.Sequential(wide, *(Mix(width) for _ in range(4)), last)

    def loss(self, clips: Tensor) -> Tensor:
        latents = self.encode(clips)  # B C t h w
        return F.mse_loss(self.decode(latents + 0.1 * torch.randn_like(latents)), clips)


# 3. The transformer: words and patches of latents are tokens of one sequence; the noise level sets each block's gates.
class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.norm = heads, nn.LayerNorm(width, elementwise_affine=False)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU("tanh"), nn.Linear(4 * width, width))
        self.modulation = nn.Linear(width, 6 * width)
        self.modulation.weight.data.zero_()
        self.modulation.bias.data.zero_()

    def forward(self, x: Tensor, level: Tensor) -> Tensor:  # B N D, B D -> B N D
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(level)[:, None].chunk(6, 2)  # B 1 D
        qkv = self.qkv(self.norm(x) * (1 + scale1) + shift1)  # B N 3D
        q, k, v = qkv.unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # each B heads N D/heads
        x = x + gate1 * self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + gate2 * self.mlp(self.norm(x) * (1 + scale2) + shift2)


class DiT(nn.Module):
    def __init__(self, width: int = 96, depth: int = 4, heads: int = 4) -> None:
        super().__init__()
        self.patches, self.words = nn.Conv3d(CHANNELS, width, PATCH, PATCH), nn.Embedding(len(WORDS), width)
        self.places = nn.Parameter(0.02 * torch.randn(FRAMES // 2 * (SIDE // 8) ** 2, width))  # N D
        self.level = nn.Sequential(nn.Linear(64, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(width), nn.ConvTranspose3d(width, CHANNELS, PATCH, PATCH)

    def forward(self, latents: Tensor, sigma: Tensor, words: Tensor) -> Tensor:  # B C t h w, B, B 5
        waves = sigma[:, None] * torch.logspace(0, 2, 32)  # B 32
        level = self.level(torch.cat([waves.sin(), waves.cos()], 1))  # B D
        patches = self.patches(latents)  # B D t h/2 w/2
        x = torch.cat([self.words(words), patches.flatten(2).transpose(1, 2) + self.places], 1)  # B 5+N D
        for block in self.blocks:
            x = block(x, level)
        return self.head(self.norm(x[:, words.shape[1] :]).transpose(1, 2).unflatten(2, patches.shape[2:]))


# 4. Learning: on the straight line from data to noise the model learns the direction, now and then without a caption.
def flow_loss(model: DiT, latents: Tensor, words: Tensor) -> Tensor:  # all of them; a batch is drawn
    chosen = torch.randint(len(latents), (32,))
    x0, asked = latents[chosen], words[chosen] * (torch.rand(32, 1) > 0.1)
    s, noise = torch.sigmoid(torch.randn(32, 1, 1, 1, 1) + 0.4), torch.randn_like(x0)
    return F.mse_loss(model((1 - s) * x0 + s * noise, s.flatten(), asked), noise - x0)


def train(name: str, model: nn.Module, steps: int, rate: float, loss_of_batch: Callable[[], Tensor]) -> None:
    matrices = {p for n, p in model.named_parameters() if n.startswith("blocks") and p.ndim == 2}
    optimizers = [torch.optim.AdamW([p for p in model.parameters() if p not in matrices], betas=(0.9, 0.95))]
    if matrices:
        optimizers.append(torch.optim.Muon([*matrices], weight_decay=0.01, adjust_lr_fn="match_rms_adamw"))
    for step in range(1, steps + 1):
        loss = loss_of_batch()
        model.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate * min(1, 20 * step / steps, 2 - 2 * step / steps)  # up, on, and down to 0
            optimizer.step()
        if step % max(1, steps // 10) == 0:
            print(f"{name} {step:4d} loss {loss:.4f} {time.process_time():4.0f} s of CPU", flush=True)
    model.eval()


# 5. Sampling: from pure noise along the direction to the data, farther than the model would towards what words add.
@torch.no_grad()
def sample(coder: Autoencoder, dit: DiT, words: Tensor, steps: int = 32, guidance: float = 3) -> Tensor:
    x = torch.randn(len(words), CHANNELS, FRAMES // 2, SIDE // 4, SIDE // 4)  # B C t h w
    for sigma in torch.linspace(1, 1 / steps, steps):
        free, asked = (dit(x, sigma.expand(len(x)), what) for what in (0 * words, words))
        x = x - (free + guidance * (asked - free)) / steps
    return coder.decode(x).clamp(-1, 1)  # B 3 T H W


def write_gif(path: str, clips: Tensor, captions: Sequence[str], columns: int = 4, side: int = 192) -> None:
    pixels = ((clips + 1) * 127.5).byte().permute(2, 0, 3, 4, 1).numpy()  # T B H W 3
    pages = [Image.new("RGB", (columns * side, -(-len(captions) // columns) * (side + 16))) for _ in pixels]
    for page, frame in zip(pages, pixels, strict=True):
        for number, caption in enumerate(captions):
            left, top = number % columns * side, number // columns * (side + 16)
            page.paste(Image.fromarray(frame[number]).resize((side, side), 0), (left, top))
            ImageDraw.Draw(page).text((left + 4, top + side + 2), caption)
    pages[0].save(path, save_all=True, append_images=pages[1:], duration=125, loop=0)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Learns to film captions, and films them.")
    parser.add_argument("--captions", nargs="+", default=SHOWN, choices=CAPTIONS, metavar="CAPTION")
    parser.add_argument("--out", default="one_file.gif", help="moving picture to write")
    parser.add_argument("--work", type=int, nargs=3, default=(450, 8192, 1600), help="steps, clips, steps")
    ask = parser.parse_args(argv)
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    coder, dit, captions = Autoencoder(), DiT(), rng.choice(CAPTIONS, ask.work[1])
    train("autoencoder", coder, ask.work[0], 3e-3, lambda: coder.loss(render(rng.choice(CAPTIONS, 16), rng)))
    latents = torch.cat([coder.encode(render(some, rng)).detach() for some in np.array_split(captions, 64)])
    words = tokenize(captions)
    train("transformer", dit, ask.work[2], 4e-3, lambda: flow_loss(dit, latents, words))
    write_gif(ask.out, sample(coder, dit, tokenize(ask.captions)), ask.captions)


if __name__ == "__main__":
    main()
