"""Records others' games with the buttons that were pressed: clips to train a world on, and its truth apart from them.

    python benchmarks/record_play.py pong    --out worlds/pong    --clips 400 --python /tmp/games/bin/python
    python benchmarks/record_play.py coinrun --out worlds/coinrun --clips 400 --python /tmp/games/bin/python

pong, freeway: Atari games of ale-py (GPL-2), every fourth of 60 frames, the brighter of two in a row (Mnih et al.,
2015).
Known of each frame: the machine's 128 bytes of memory, in which ball and paddles stand.

coinrun, maze: of Procgen (Cobbe et al. 2020, arXiv 1912.01588), plain grounds and one theme, by the package procgen2.
Known: the game's own state at each clip's first frame, which it takes back, and rewards. A clip ends with its level.

The games run in a Python of their own (`python -m venv /tmp/games && /tmp/games/bin/pip install ale-py procgen2
"numpy<2"`), which needs nothing of minisora, and never become a dependency. OUT is as `minisora world record` writes
it: OUT/clips for `--data`, OUT/truth for measuring. A button is held for four frames on average. A game is played in
one go, so a recording that was stopped begins anew, in another folder.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

SKIP = 4
LET_GO = 0.25
CAPTIONS = {
    "pong": "pong: two paddles and a ball",
    "freeway": "freeway: a chicken beside a road with cars",
    "coinrun": "coinrun: a runner among boxes, saws and coins",
    "maze": "maze: a mouse on its way to the cheese",
}
ATARI = ("pong", "freeway")
# Of Procgen's 15 combinations those that these games tell apart.
PROCGEN_BUTTONS = {
    "coinrun": {"noop": 4, "left": 1, "right": 7, "jump": 5, "jump left": 2, "jump right": 8, "down": 3},
    "maze": {"noop": 4, "left": 1, "right": 7, "up": 5, "down": 3},
}
# A clip: frames (T H W 3 uint8), buttons (T - 1), their names, and arrays of the game's state by name.
Played = tuple[np.ndarray, np.ndarray, tuple[str, ...], dict[str, np.ndarray]]


class Sticky:
    """Holds a button for four frames on average."""

    def __init__(self, number: int, rng: np.random.Generator) -> None:
        self.number, self.rng, self.held = number, rng, int(rng.integers(number))

    def press(self) -> int:
        if self.rng.random() < LET_GO:
            self.held = int(self.rng.integers(self.number))
        return self.held


def play_atari(game: str, frames: int, seed: int) -> Iterator[Played]:
    """Endless clips of 210 x 160 pixels."""
    from ale_py import ALEInterface, LoggerMode
    from ale_py.roms import get_rom_path

    rng = np.random.default_rng(seed)
    machine = ALEInterface()
    machine.setLoggerMode(LoggerMode.Error)
    machine.setInt("random_seed", seed)
    machine.setFloat("repeat_action_probability", 0.0)
    machine.loadROM(get_rom_path(game))
    actions = list(machine.getMinimalActionSet())
    names = tuple(action.name.lower() for action in actions)
    policy = Sticky(len(actions), rng)

    def act(button: int) -> np.ndarray:
        shown = []
        for _ in range(SKIP):
            machine.act(actions[button])
            shown.append(machine.getScreenRGB())
        return np.maximum(*shown[-2:])

    while True:
        machine.reset_game()
        for _ in range(int(rng.integers(20, 200))):
            picture = act(policy.press())
        pictures, memory, buttons = [picture], [machine.getRAM()], []
        while len(pictures) < frames and not machine.game_over():
            buttons.append(policy.press())
            pictures.append(act(buttons[-1]))
            memory.append(machine.getRAM())
        if len(pictures) == frames:
            yield np.stack(pictures), np.array(buttons), names, {"ram": np.stack(memory)}


def play_procgen(game: str, frames: int, seed: int) -> Iterator[Played]:
    """Endless clips of 64 x 64 pixels; a level that ends sooner is not used."""
    from procgen import ProcgenGym3Env

    rng = np.random.default_rng(seed)
    env: Any = ProcgenGym3Env(
        num=1, env_name=game, rand_seed=seed, use_backgrounds=False, restrict_themes=True, center_agent=True
    )
    names, actions = zip(*PROCGEN_BUTTONS[game].items(), strict=True)
    policy = Sticky(len(names), rng)
    while True:
        pictures: list[np.ndarray] = []
        buttons: list[int] = []
        rewards: list[float] = []
        start = np.frombuffer(env.callmethod("get_state")[0], np.uint8)
        while True:
            reward, seen, first = env.observe()
            # The first frame of another level has no past here.
            if first[0] and pictures:
                break
            pictures.append(seen["rgb"][0].copy())
            rewards.append(float(reward[0]))
            if len(pictures) == frames:
                state = {"start": start, "rewards": np.array(rewards)}
                yield np.stack(pictures), np.array(buttons), names, state
                break
            buttons.append(policy.press())
            env.act(np.array([actions[buttons[-1]]]))
        env.act(np.array([actions[policy.press()]]))


def serve(game: str, clips: int, frames: int, seed: int, pipe: IO[bytes]) -> None:
    """In the games' own Python: play, and write each clip as a line of JSON and the bytes of its arrays."""
    play = play_atari if game in ATARI else play_procgen
    for _, (pictures, buttons, names, states) in zip(range(clips), play(game, frames, seed), strict=False):
        arrays = {"pictures": pictures, "buttons": buttons, **states}
        head = {name: (array.dtype.str, array.shape) for name, array in arrays.items()}
        pipe.write(json.dumps([names, head]).encode() + b"\n")
        for array in arrays.values():
            pipe.write(array.tobytes())
        pipe.flush()


def receive(pipe: IO[bytes]) -> Iterator[Played]:
    """The clips that `serve` writes."""
    while line := pipe.readline():
        names, head = json.loads(line)
        arrays = {
            name: np.frombuffer(
                pipe.read(int(np.prod(shape)) * np.dtype(kind).itemsize), np.dtype(kind)
            ).reshape(shape)
            for name, (kind, shape) in head.items()
        }
        yield arrays.pop("pictures"), arrays.pop("buttons"), tuple(names), arrays


def save(out: Path, game: str, played: Iterator[Played], fps: float) -> int:
    """Write clips, captions and truth; how many."""
    import torch

    from minisora.data.folder.metadata import only_ours, write_metadata
    from minisora.data.video.write_video import write_video
    from minisora.worlds.truth import Truth, write_truth

    only_ours(out / "clips", set())
    names = []
    for index, (pictures, buttons, button_names, states) in enumerate(played):
        names.append(f"clip_{index:06d}")
        truth = Truth(game, "sticky", button_names, buttons, states)
        write_truth(out / "truth" / f"{names[-1]}.npz", truth)
        video = torch.from_numpy(pictures.copy()).permute(3, 0, 1, 2)
        write_video(out / "clips" / f"{names[-1]}.mp4", video, fps)
    rows = [(f"{name}.mp4", CAPTIONS[game]) for name in names]
    write_metadata(out / "clips" / "metadata.csv", ("file_name", "text"), rows)
    return len(names)


def main() -> int:
    """Record and write; the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("game", choices=list(CAPTIONS))
    parser.add_argument("--out", type=Path, help="folder for clips/ and truth/")
    parser.add_argument("--clips", type=int, default=100)
    parser.add_argument("--frames", type=int, default=32, help="of each clip")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--python", default=sys.executable, help="that has the game")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    game, numbers = arguments.game, (arguments.clips, arguments.frames, arguments.seed)
    if arguments.serve:
        serve(game, *numbers, sys.stdout.buffer)
        return 0
    if arguments.out is None or arguments.clips < 1 or arguments.frames < 2:
        parser.error("give --out, 1 clip or more, and 2 frames or more")
    clips, frames, seed = map(str, numbers)
    command = [
        arguments.python,
        __file__,
        game,
        "--serve",
        "--clips",
        clips,
        "--frames",
        frames,
        "--seed",
        seed,
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as player:
        assert player.stdout is not None
        count = save(arguments.out, game, receive(player.stdout), 60 / SKIP)
    if player.returncode or count < arguments.clips:
        print(f"{game} ended after {count} clips; does {arguments.python} have it?", file=sys.stderr)
        return 1
    print(f"{count} clips in {arguments.out / 'clips'}, the truth in {arguments.out / 'truth'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
