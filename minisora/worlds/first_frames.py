"""Where to begin to play: a picture, a clip, or words that the text model draws.

All give what was seen so far, `3 T H W` uint8, as `Beginning` takes it; a world that a model dreams goes on from there.
Of a recorded clip of the arena the true world is known as well, and can go on beside the dream.
"""

import math
from pathlib import Path

from minisora.data.clips import to_uint8
from minisora.data.video.read_video import fit_pictures, probe, read_video
from minisora.errors import UserError
from minisora.flow.denoise import SampleSettings
from minisora.screen import plain
from minisora.worlds.game import Beginning
from minisora.worlds.recording import true_world_at
from minisora.worlds.world import World

# Frames of a clip before the one that play begins with.
BEFORE = 7


def of_picture(file: Path, world: World, seed: int = 0) -> Beginning:
    """Begin with a picture, cropped to the world's shape.

    Raises:
        UserError: it cannot be read.
    """
    height, width = world.size
    picture = read_video(file, frames=1, height=height, width=width, fps=world.fps)
    return Beginning(seed, to_uint8(picture), words=f"the picture {plain(file.name)}")


def of_clip(file: Path, world: World, seed: int = 0) -> Beginning:
    """Go on after the first frames of a clip, of any size and rate; with the true world where it was recorded with it.

    Raises:
        UserError: the clip cannot be read, or what was recorded with it.
    """
    height, width = world.size
    frames = min(BEFORE + 1, probe(file).frames_at(world.fps))
    video = read_video(file, frames=frames, height=height, width=width, fps=world.fps)
    truth = true_world_at(file, frames - 1)
    fits = (
        truth is not None
        and truth.size == world.size
        and math.isclose(truth.fps, world.fps)
        # Codes without names are no buttons of the arena's.
        and world.buttons.keys() <= truth.buttons.keys()
    )
    return Beginning(seed, to_uint8(video), truth if fits else None, words=f"the clip {plain(file.name)}")


def of_prompt(prompt: str, world: World, seed: int = 0, model: str | Path = "toy") -> Beginning:
    """Begin with what a text model draws.

    Args:
        prompt: what to draw.
        world: to play.
        seed: of the drawing, and of the world.
        model: a model folder, or the name of a shipped model.

    Raises:
        UserError: the model cannot be read, or it knows no word of the prompt.
    """
    # The model takes seconds to load, and is needed here alone.
    from minisora.pipelines.model_folder import load_pipeline

    prompt = prompt.strip()
    if not prompt:
        raise UserError("no prompt: say what to draw, such as 'a small red circle by day'")
    pipeline = load_pipeline(model, "cpu")
    pipeline.check_prompt(prompt)
    settings = SampleSettings(seed=seed, progress=False)
    drawn = pipeline.videos(prompt, pipeline.size(1, None, None), settings)  # 1 3 1 H W
    fitted = fit_pictures(to_uint8(drawn)[:, :, 0].float(), *world.size, "crop")  # 1 3 H W
    return Beginning(seed, fitted.round().byte()[0, :, None], words=f"the words “{plain(prompt)}”")
