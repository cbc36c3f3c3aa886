"""Writes the README's pictures: what the shipped model makes of six prompts and in six modes, what the shipped world
dreams, and the report's figure.

python scripts/pictures.py    a few seconds a video on one core

Every video has seed 0, and the worlds seeds 0 to 2; none was chosen. A gray frame is given to the model, an orange one
is made.
"""

import shutil
import sys
import tempfile
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from typer.testing import CliRunner

from minisora.cli import app
from minisora.data.clips import to_float
from minisora.files import whole
from minisora.pipelines import modes, restyle
from minisora.pipelines.model_folder import load_pipeline
from minisora.worlds.dream import Dream, load_dream
from minisora.worlds.world import TrueWorld

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PROMPTS = (
    "a red circle moving left",
    "a purple triangle moving up",
    "a small yellow square standing still",
    "a blue square moving right behind a gray wall",
    "a white triangle moving down by day",
    "a green circle moving right at night",
)
COLUMNS, SIDE, GAP, LINE, FONT = 3, 160, 10, 16, 13
COLOURS, PALETTE_EVERY = 192, 4
# A button is held so many frames.
WORLD_STEPS, HELD = 48, 4
GIVEN, MADE, PLAIN = "#8c8c8c", "#d55e00", "#ffffff"


@dataclass(frozen=True)
class Panel:
    """One moving picture of the grid: a video 3 T H W in [-1, 1], a border's colour for each frame, and its caption."""

    video: Tensor
    borders: Sequence[str]
    caption: str
    loops: bool = False

    def frame(self, number: int) -> tuple[Image.Image, str]:
        """The picture at one moment: after its end a video stands still, or begins anew if it loops."""
        length = len(self.borders)
        index = number % length if self.loops else min(number, length - 1)
        pixels = ((self.video[:, index].float().clamp(-1, 1) + 1) * 127.5).round().byte()
        image = Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy())  # H W 3
        return image.resize((SIDE, SIDE), Image.Resampling.LANCZOS), self.borders[index]


def main() -> int:
    """Write prompts.gif, modes.gif, world.gif and training.png; the exit code."""
    if sys.argv[1:]:
        print("error: there are no options", file=sys.stderr)
        return 2
    pipeline = load_pipeline("toy")
    videos = pipeline(list(PROMPTS), seed=0).videos  # 6 3 17 64 64
    fps = float(pipeline.config.fps)
    plain = [
        Panel(video, [PLAIN] * video.shape[1], prompt) for video, prompt in zip(videos, PROMPTS, strict=True)
    ]
    write_grid(RESULTS / "prompts.gif", plain, fps)
    write_grid(RESULTS / "modes.gif", mode_panels(videos[:1]), fps)
    write_grid(RESULTS / "world.gif", world_panels(load_dream(Path("dream"), "cpu")), 10.0)
    write_figure(RESULTS / "training.png")
    return 0


def mode_panels(clip: Tensor) -> list[Panel]:
    """What each mode makes of the first prompt's clip, 1 3 T H W."""
    pipeline, prompt = load_pipeline("toy"), PROMPTS[0]
    length, height, width = clip.shape[2:]
    image, night = clip[:, :, 0], f"{prompt} at night"
    animated = modes.image_to_video(pipeline, prompt, image)
    longer = modes.extend(pipeline, prompt, clip)
    earlier = modes.extend(pipeline, prompt, clip, backward=True)
    around = modes.loop(pipeline, prompt, clip)
    region = torch.zeros(1, length, height, width, dtype=torch.bool)
    region[..., width // 3 : 2 * width // 3] = True
    filled = restyle.inpaint(pipeline, prompt, clip, region)
    day = restyle.restyle(pipeline, f"{prompt} by day", clip, source=night)

    def panel(video: Tensor, given: range, caption: str, loops: bool = False) -> Panel:
        borders = [GIVEN if frame in given else MADE for frame in range(video.shape[2])]
        return Panel(video[0], borders, caption, loops)

    new = earlier.shape[2] - length
    return [
        panel(animated, range(1), "animate: an image begins to move"),
        panel(longer, range(length), "extend: what comes after"),
        panel(earlier, range(new, new + length), "prepend: what came before"),
        panel(around, range(length), "loop: back to the start", loops=True),
        panel(filled, range(0), "inpaint: the middle third made anew"),
        panel(day, range(0), "restyle: from night to day"),
    ]


def world_panels(dream: Dream) -> list[Panel]:
    """Three arenas as their rules have them, and below each the dream that began with its first frame, one policy's
    buttons for both.
    """
    above, below = [], []
    for seed in range(COLUMNS):
        truth = TrueWorld()
        frame = truth.start(seed=seed)
        true, dreamed = [frame], [dream.start(frame, seed)]
        pressed = np.random.default_rng(seed).integers(truth.num_codes, size=WORLD_STEPS // HELD)
        for button in pressed.repeat(HELD):
            true.append(truth.step([button]))
            dreamed.append(dream.step([dream.buttons[truth.names[button]]]))
        for panels, frames, colour, caption in (
            (above, true, GIVEN, "the arena"),
            (below, dreamed, MADE, "the dream of it"),
        ):
            video = to_float(torch.stack(frames, dim=2))[0]
            panels.append(Panel(video, [colour] * len(frames), caption))
    return above + below


def write_grid(path: Path, panels: Sequence[Panel], fps: float) -> None:
    """Write the panels side by side as one gif, as long as the longest of them."""
    font = ImageFont.load_default(size=FONT)
    captions = ["\n".join(textwrap.wrap(panel.caption, 24)) for panel in panels]
    cell_width, cell_height = SIDE + 2 * GAP, SIDE + 2 * GAP + 2 * LINE
    rows = -(-len(panels) // COLUMNS)
    frames = []
    for number in range(max(len(panel.borders) for panel in panels)):
        sheet = Image.new("RGB", (COLUMNS * cell_width, rows * cell_height), "white")
        draw = ImageDraw.Draw(sheet)
        for index, (panel, caption) in enumerate(zip(panels, captions, strict=True)):
            left, top = index % COLUMNS * cell_width + GAP, index // COLUMNS * cell_height + GAP
            image, border = panel.frame(number)
            draw.rectangle((left - 4, top - 4, left + SIDE + 3, top + SIDE + 3), fill=border)
            sheet.paste(image, (left, top))
            draw.multiline_text((left, top + SIDE + 6), caption, fill="black", font=font, spacing=2)
        frames.append(sheet)
    # One palette for all, so that nothing changes its colour, and no dots that imitate more: they would be new in every
    # frame, which makes a file several times as large.
    some = Image.fromarray(np.concatenate([np.asarray(frame) for frame in frames[::PALETTE_EVERY]]))
    palette = some.quantize(COLOURS, kmeans=4)
    frames = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    with whole(path) as partial:
        pause = round(100 / fps) * 10
        options = {"save_all": True, "append_images": frames[1:], "duration": pause, "loop": 0}
        frames[0].save(partial, format="GIF", **options)
    print(f"wrote {path}")


def write_figure(path: Path) -> None:
    """Write the report's figure of how a published estimate of Sora's training changes, step by step."""
    calibration = max(RESULTS.glob("calibration_*.json"), key=lambda path: path.stem.split("_")[2])
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["report", "--preset", "measured", "--calibration", str(calibration), "--out", folder]
        done = CliRunner().invoke(app, arguments)
        if done.exit_code:
            raise SystemExit(done.output)
        shutil.copy(Path(folder) / "figures" / "waterfall_training.png", path)
    print(f"wrote {path}")


if __name__ == "__main__":
    sys.exit(main())
