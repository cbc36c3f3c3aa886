"""What the next frame is learned from: which frames are the past, at which noise, and under which code."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from minisora.config import Config, load
from minisora.flow.path import interpolate
from minisora.models.frame_memory import FrameMemory
from minisora.worlds.dynamics import (
    Objective,
    beside,
    build_dynamics,
    clean_frame,
    idle_codes,
    next_frame,
    sampling_sigmas,
    window_errors,
)
from minisora.worlds.step_batches import WindowBatch, WindowBatches

SHAPE = [
    "dit.width=24",
    "dit.depth=2",
    "dit.heads=2",
    "vae.latent_channels=4",
    "world.frames=5",
    "world.window=3",
    "world.objective=clean",
]
IDLE, LEFT, RIGHT = 2, 0, 5


class Walk:
    """Latents of clips in which one cell walks along a line, to its end at most; a code for each step."""

    def __init__(self, clips: int = 12, frames: int = 6):
        draws = torch.Generator().manual_seed(0)
        place = torch.randint(0, 4, (clips,), generator=draws)
        self.videos = torch.zeros(clips, 4, frames, 4, 4)
        codes = []
        for frame in range(frames):
            self.videos[torch.arange(clips), :, frame, 1, place] = 2.0
            wanted = torch.randint(-1, 2, (clips,), generator=draws)
            after = (place + wanted).clamp(0, 3)
            # As codes are found: by what is seen, not by what was wanted.
            codes.append(torch.tensor([LEFT, IDLE, RIGHT])[after - place + 1])
            place = after
        self.codes = torch.stack(codes[:-1], 1)

    def __len__(self) -> int:
        return len(self.videos)

    def latents(self, indices: Sequence[int]) -> Tensor:
        return self.videos[list(indices)]

    def captions(self) -> list[str]:
        return [""] * len(self)


def config(*more: str) -> Config:
    return load("world", [*SHAPE, *more])


def batch_of(world: Config, positions: Sequence[int] = range(8)) -> WindowBatch:
    walk = Walk()
    idle = torch.zeros(8, dtype=torch.bool)
    idle[IDLE] = True
    share = world.world.idle_share
    return WindowBatches(walk, walk.codes, world.world.frames, 0.0, 8, 0, idle, share).at(positions)


def fresh(world: Config) -> nn.Module:
    torch.manual_seed(0)
    model = build_dynamics(world)
    # Fresh, it says nothing: the last layer is zero.
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


def test_codes_that_do_nothing_are_found_even_where_the_world_moves_by_itself() -> None:
    walk = Walk()
    assert idle_codes(walk, walk.codes, 8).nonzero().flatten().tolist() == [IDLE]
    # Something else flickers at every step, in as many cells as the walker changes.
    walk.videos[:, :, ::2, 3, :3] = 1.0
    assert idle_codes(walk, walk.codes, 8).nonzero().flatten().tolist() == [IDLE]


def test_a_share_of_the_steps_that_do_nothing_is_learned_under_codes_that_do_something() -> None:
    plain, tried = (batch_of(config(f"world.idle_share={share}"), range(400)) for share in (0, 0.5))
    idle = plain.codes == IDLE
    assert tried.codes[~idle].equal(plain.codes[~idle])
    changed = tried.codes[idle] != IDLE
    assert 0.4 < changed.float().mean() < 0.6
    assert set(tried.codes[idle].tolist()) == set(range(8))
    # Half of them are what was done before, as buttons are held.
    after = (plain.codes[:, :-1] == LEFT) & (plain.codes[:, 1:] == IDLE)
    again = tried.codes[:, 1:][after & (tried.codes[:, 1:] != IDLE)]
    assert 0.4 < (again == LEFT).float().mean() < 0.8
    # A run of them has one code, or what is pressed after a rest would be learned to do nothing.
    rests = idle[:, 1:] & idle[:, :-1]
    assert rests.sum() > 100
    assert tried.codes[:, 1:][rests].equal(tried.codes[:, :-1][rests])
    # Nothing else is drawn otherwise.
    assert tried.noise.equal(plain.noise)
    assert tried.normal.equal(plain.normal)


def test_frames_are_learned_at_the_noise_levels_of_play() -> None:
    seen: list[Tensor] = []

    class Watched(nn.Module):
        def forward(self, latents: Tensor, sigma: Tensor, **_: object) -> Tensor:
            seen.append(sigma)
            return latents[:, :4]

    for share in (0.0, 1.0):
        world = config(f"world.played_share={share}", "world.steps=4")
        window_errors(Watched(), batch_of(world, range(100)), world)
    density, played = seen
    made = batch_of(world, range(100)).context >= 0.5
    assert played[made].unique().tolist() == sampling_sigmas(4)[:-1][::-1]
    assert len(density[made].unique()) > 100
    # Frames that are past of others are as they were.
    assert played[~made].equal(density[~made])


@pytest.mark.parametrize(("streams", "objective"), [(1, "clean"), (2, "clean"), (1, "composite")])
def test_the_model_learns_from_its_own_past_towards_the_true_frame(
    streams: int, objective: Objective
) -> None:
    world = config("world.own_share=1", f"world.streams={streams}", f"world.objective={objective}")
    # At the end of the training; at its beginning there is one pass.
    batch, seen = replace(batch_of(world), done=torch.ones(8)), list[Tensor]()
    model = fresh(world)

    class Watched(nn.Module):
        def forward(self, latents: Tensor, *args: Tensor, **more: object) -> Tensor:
            seen.append(latents)
            said = model(latents, *args, **more)
            last = said[:, :, -batch.latents.shape[2] :]
            made.append(clean_frame(last, batch.noise, batch.normal, batch.before, objective))
            return said

    made: list[Tensor] = []
    errors = window_errors(Watched(), batch, world)
    first, second = seen
    level = world.world.most_context_sigma * batch.before_level
    # What is beside a frame the second time is what was made of the one before it, at the same noise.
    before = torch.cat([batch.before[:, :, :1], made[0][:, :, :-1]], dim=2)
    expected = interpolate(before, batch.before_noise, level).noisy
    torch.testing.assert_close(second[:, 4:8, -batch.latents.shape[2] :], expected)
    assert not torch.allclose(first[:, 4:8], second[:, 4:8])
    assert errors.requires_grad
    # Without, there is one pass; and validation is of the true past.
    seen.clear()
    window_errors(Watched(), batch, world, own=False)
    window_errors(Watched(), batch, world.replace(**{"world.own_share": 0.0}))
    window_errors(Watched(), replace(batch, done=torch.zeros(8)), world)
    assert len(seen) == 3
    assert all(each.equal(seen[0]) for each in seen)


def test_in_two_streams_what_is_made_sees_the_past_as_at_play_and_no_frame_that_is_made() -> None:
    world = config()
    model, batch = fresh(world), batch_of(world, range(2))
    frames = batch.latents.shape[2]
    level = torch.full((2, frames), 0.1)
    past = beside(batch.latents, batch.before, level)
    noisy = beside(batch.noise, batch.before, level)
    sigma = torch.cat([level, torch.ones(2, frames)], dim=1)
    twice = torch.cat([past, noisy], dim=2)
    with torch.no_grad():
        said = model(twice, sigma, labels=batch.codes.repeat(1, 2), streams=2)[:, :, frames:]
        memory = FrameMemory(model)  # type: ignore[arg-type]
        for frame in range(frames):
            at = slice(frame, frame + 1)
            played = memory.look(noisy[:, :, at], torch.ones(2), batch.codes[:, frame])
            torch.testing.assert_close(played, said[:, :, at], atol=1e-4, rtol=1e-4)
            memory.see(past[:, :, at], level[:, 0], batch.codes[:, frame])
        other = noisy.clone()
        other[:, :, 1] = 7.0
        again = model(torch.cat([past, other], dim=2), sigma, labels=batch.codes.repeat(1, 2), streams=2)
    same = [bool(torch.allclose(again[:, :, frames + t], said[:, :, t])) for t in range(frames)]
    assert same == [True, False, True, True, True]


def test_errors_at_low_noise_levels_count_more_up_to_a_limit() -> None:
    class Off(nn.Module):
        """Says a frame that is off by one everywhere."""

        def forward(self, latents: Tensor, sigma: Tensor, **_: object) -> Tensor:
            return batch.latents + 1

    batch = batch_of(config())
    found = []
    for most in (1, 4, 1e6):
        world = config(
            f"world.most_weight={most}", "world.moving_weight=1", "world.played_share=1", "world.steps=1"
        )
        found.append(window_errors(Off(), batch, world))
    past = batch.context < 0.5
    assert found[0].equal(torch.ones(8))
    # Frames to be made are made from noise alone here, whose weight is 1; the past is at half of it or below.
    torch.testing.assert_close(found[1], 1 + 3 * past.float().mean(1))
    assert (found[2] > found[1])[past.any(1)].all()


def said_of(objective: str, clean: Tensor, noise: Tensor) -> Tensor:
    """What a model says that knows the clean frames."""
    if objective == "velocity":
        return noise - clean
    # And that nothing stays, for it need not.
    return clean if objective == "clean" else torch.cat([clean, torch.full_like(clean[:, :1], -99.0)], dim=1)


@pytest.mark.parametrize("objective", ["composite", "clean", "velocity"])
def test_composite_clean_frame_and_velocity_are_ways_to_say_the_same(objective: Objective) -> None:
    class Knows(nn.Module):
        def forward(self, latents: Tensor, sigma: Tensor, **_: object) -> Tensor:
            return said_of(objective, batch.latents, batch.noise)

    world = config(f"world.objective={objective}")
    batch = batch_of(world)
    assert window_errors(Knows(), batch, world).max() < 1e-6

    class Plays:
        def look(self, latents: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
            noisy, level = latents[:, :4], sigma[:, None, None, None, None]
            return said_of(objective, target, target + (noisy - target) / level)

        def see(self, latents: Tensor, sigma: Tensor, labels: Tensor | None = None) -> None:
            pass

    target, before = (torch.randn(1, 4, 1, 4, 4) for _ in range(2))
    noise = [torch.randn_like(target) for _ in range(3)]
    said = next_frame(Plays(), before, torch.zeros(1), noise, sampling_sigmas(3), 0.1, objective)
    torch.testing.assert_close(said, target)


def test_what_stays_is_kept_exactly_however_noisy_it_was_seen() -> None:
    class Says(nn.Module):
        """Zeros, and that the left half stays."""

        def look(self, latents: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
            said = torch.zeros(len(latents), 5, 1, 4, 4)
            said[:, 4] = torch.tensor([99.0, 99.0, -99.0, -99.0])
            return said

        def see(self, latents: Tensor, sigma: Tensor, labels: Tensor | None = None) -> None:
            pass

    before = torch.randn(3, 4, 1, 4, 4)
    noise = [torch.randn_like(before) for _ in range(3)]
    codes = torch.arange(3)
    shown = next_frame(Says(), before, codes, noise, sampling_sigmas(2), 0.4, "composite")
    assert shown[..., :2].equal(before[..., :2])
    assert not shown[..., 2:].any()
    # A fresh model, which says nothing, keeps most of what there is.
    fresh_one = FrameMemory(build_dynamics(config("world.objective=composite")))
    kept = next_frame(fresh_one, before, codes, noise, sampling_sigmas(2), 0.4, "composite")
    assert 0.8 < float((kept / before).mean()) < 1
    torch.testing.assert_close(kept / before, (kept / before).mean().expand_as(before))


def test_rows_of_a_batch_are_its_windows() -> None:
    batch = batch_of(config())
    chosen = torch.arange(8) % 3 == 0
    part = batch.rows(chosen)
    assert part.indices == [batch.indices[row] for row in (0, 3, 6)]
    assert part.noise.equal(batch.noise[chosen])
    assert replace(batch).samples.equal(batch.latents)
