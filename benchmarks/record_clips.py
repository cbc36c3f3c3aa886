"""Real footage that comes in packages, for trying the project on clips that it does not draw itself.

    pip install 'minisora[bench]'
    python benchmarks/record_clips.py games  --out clips/games  --each 40
    python benchmarks/record_clips.py digits --out clips/digits --each 40

games: Atari games of `ale-py` (GPL-2, for benchmarks only), played by buttons pressed at random. Every clip is an mp4
of the emulator's own 210 x 160 pixels at 15 frames a second: every fourth of 60, the brighter of two in a row, since
these machines draw some sprites in turn (Mnih et al. 2015, Methods). A clip begins at a random moment of a game.

digits: those of scikit-learn (handwritten, 8 x 8), enlarged, on straight ways that bounce off the edges, at 8 frames a
second: Moving MNIST (Srivastava et al. 2015, arXiv 1502.04681) without a download, one digit a clip.

A caption of one line lies beside each clip. Every written digit is in one clip, so that held-out clips hold unseen
writing.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from minisora.data.video.write_video import write_video

# T H W 3, or a picture H W 3.
Clip = NDArray[np.uint8]
# Frames of the emulator's 60 a second to one of the clip.
SKIP = 4
GAMES = {
    "pong": "pong: two paddles and a ball",
    "space_invaders": "space invaders: rows of aliens above a cannon",
    "ms_pacman": "ms pacman: a maze with dots and ghosts",
    "enduro": "enduro: a car on a road with other cars",
    "asterix": "asterix: rows of flying pots and a hero",
    "skiing": "skiing: a skier on white snow between flags",
}
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def play(game: str, count: int, frames: int, seed: int) -> Iterator[Clip]:
    """So many clips (T, 210, 160, 3) of one game, by its name in ale-py."""
    from ale_py import ALEInterface, LoggerMode
    from ale_py.roms import get_rom_path

    rng = np.random.default_rng(seed)
    machine = ALEInterface()
    machine.setLoggerMode(LoggerMode.Error)
    machine.setInt("random_seed", seed)
    machine.loadROM(get_rom_path(game))
    buttons = machine.getMinimalActionSet()
    held, left = buttons[0], 0

    def picture() -> Clip:
        nonlocal held, left
        if left == 0:
            held, left = buttons[rng.integers(len(buttons))], int(rng.integers(2, 12))
        left -= 1
        last: list[Clip] = []
        for _ in range(SKIP):
            machine.act(held)
            last.append(machine.getScreenRGB())
        return np.maximum(*last[-2:])

    while count:
        machine.reset_game()
        for _ in range(int(rng.integers(8, 200))):
            picture()
        pictures: list[Clip] = []
        while len(pictures) < frames and not machine.game_over():
            pictures.append(picture())
        if len(pictures) == frames:
            count -= 1
            yield np.stack(pictures)


def move_digit(image: Clip, frames: int, side: int, rng: np.random.Generator) -> Clip:
    """A digit (h, w) on a straight way within a black square of `side` pixels: a clip (T, side, side, 3)."""
    room = side - np.array(image.shape)
    place, step = rng.uniform(0, room), rng.uniform(1, 4) * _direction(rng)
    clip = np.zeros((frames, side, side, 3), np.uint8)
    for frame in clip:
        y, x = np.round(place).astype(int)
        frame[y : y + image.shape[0], x : x + image.shape[1]] = image[..., None]
        step = np.where((place + step < 0) | (place + step > room), -step, step)
        place = place + step
    return clip


def _direction(rng: np.random.Generator) -> NDArray[np.float64]:
    angle = rng.uniform(0, 2 * np.pi)
    return np.array([np.sin(angle), np.cos(angle)])


def digits(each: int, frames: int, seed: int) -> Iterator[tuple[str, str, Clip]]:
    """Name, caption and clip (T, 64, 64, 3) of every clip."""
    from sklearn.datasets import load_digits

    rng = np.random.default_rng(seed)
    data = load_digits()
    for number, word in enumerate(DIGITS):
        written = data.images[data.target == number][:each]
        for index, pixels in enumerate(written):
            grown = Image.fromarray((pixels * (255 / 16)).astype(np.uint8)).resize(
                (24, 24), Image.Resampling.BICUBIC
            )
            yield f"{word}_{index:03}", f"the digit {word}", move_digit(np.asarray(grown), frames, 64, rng)


def save(out: Path, name: str, caption: str, clip: Clip, fps: float) -> None:
    """Write OUT/NAME.mp4, which loses little, and its caption to OUT/NAME.txt."""
    video = torch.from_numpy(clip).permute(3, 0, 1, 2).float() / 127.5 - 1
    write_video(out / f"{name}.mp4", video, fps=fps)
    (out / f"{name}.txt").write_text(caption + "\n")


def main() -> None:
    """Record and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["games", "digits"])
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--each", type=int, default=40, help="clips of each game or digit")
    parser.add_argument("--frames", type=int, help="pictures of each clip; 45 of games, 17 of digits")
    parser.add_argument("--names", nargs="+", default=list(GAMES), help="of games, as ale-py knows them")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.what == "digits":
        for name, caption, clip in digits(arguments.each, arguments.frames or 17, arguments.seed):
            save(arguments.out, name, caption, clip, 8)
        return
    for number, game in enumerate(arguments.names):
        for index, clip in enumerate(
            play(game, arguments.each, arguments.frames or 45, arguments.seed + number)
        ):
            caption = GAMES.get(game, game.replace("_", " "))
            save(arguments.out, f"{game}_{index:03}", caption, clip, 60 / SKIP)


if __name__ == "__main__":
    main()
