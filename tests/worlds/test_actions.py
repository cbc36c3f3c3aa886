"""Codes found by looking: they mean what is done, everywhere, at the right moment; and each way to fail is seen."""

import numpy as np
import pytest
import torch
from torch import Tensor

from minisora.data.clips import to_float
from minisora.errors import UserError
from minisora.worlds.actions import ActionModel
from minisora.worlds.naming import name_codes, read_names

MOVES = torch.tensor([(0, 0), (-2, 0), (2, 0), (0, -2), (0, 2)])
SIDE, SQUARE = 16, 4


def clips(num: int, frames: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """A bright square on a dark ground, moved by a button held for some frames: video, buttons, places (y, x)."""
    generator = torch.Generator().manual_seed(seed)
    place = torch.randint(0, SIDE - SQUARE, (num, 2), generator=generator)
    held = torch.randint(5, (num,), generator=generator)
    places, buttons = [place], []
    for _ in range(frames - 1):
        drawn = torch.randint(5, (num,), generator=generator)
        held = torch.where(torch.rand(num, generator=generator) < 0.5, drawn, held)
        wanted = place + MOVES[held]
        # Against the edge nothing would be seen: there another button is pressed.
        stopped = ((wanted < 0) | (wanted > SIDE - SQUARE)).any(1)
        held = torch.where(stopped, 0, held)
        place = place + MOVES[held]
        places.append(place)
        buttons.append(held)
    video = torch.full((num, 3, frames, SIDE, SIDE), 20, dtype=torch.uint8)
    for t, at in enumerate(places):
        for row, (y, x) in enumerate(at.tolist()):
            video[row, :, t, y : y + SQUARE, x : x + SQUARE] = 220
    return video, torch.stack(buttons, 1), torch.stack(places[:-1], 1)


def learned(discovery: str, steps: int) -> ActionModel:
    torch.manual_seed(0)
    model = ActionModel(8, discovery, side=16, width=16, depth=2)  # type: ignore[arg-type]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    video = to_float(clips(200, 6, 1)[0])
    generator = torch.Generator().manual_seed(2)
    for step in range(steps):
        rows = torch.randint(200, (32,), generator=generator)
        at = int(torch.randint(1, 5, (1,), generator=generator))
        frames = video[rows, :, at - 1 : at + 2].clone()
        frames[::2, :, 0] = frames[::2, :, 1]
        found = model(frames)
        share = 0.3 - 0.2 * step / steps
        loss = (found.error + share * found.mean_error).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def model() -> ActionModel:
    return learned("winner", 300)


def test_codes_mean_buttons_everywhere_at_their_own_step_and_nothing_else(model: ActionModel) -> None:
    video, buttons, places = clips(120, 6, 3)
    codes = torch.stack([model.codes_of(clip) for clip in to_float(video)])  # N T-1
    names = name_codes(
        codes[:40].flatten(), buttons[:40].flatten(), 8, ["noop", "up", "down", "left", "right"]
    )
    seen, pressed = codes[40:], buttons[40:]
    assert names.accuracy(seen.flatten(), pressed.flatten()) > 0.9
    assert set(names.pressed) == {"noop", "up", "down", "left", "right"}

    # Not right here and left there.
    middle = (SIDE - SQUARE) / 2
    for upper in (True, False):
        for left in (True, False):
            here = ((places[40:, :, 0] < middle) == upper) & ((places[40:, :, 1] < middle) == left)
            assert names.accuracy(seen[here], pressed[here]) > 0.85

    # A code belongs to the step that leads to the next frame, not to the one before or after.
    for shifted in (
        names.accuracy(seen[:, 1:].flatten(), pressed[:, :-1].flatten()),
        names.accuracy(seen[:, :-1].flatten(), pressed[:, 1:].flatten()),
    ):
        assert shifted < 0.75

    # A code follows from three frames, whatever comes after them.
    later = to_float(video[50]).clone()
    later[:, 4:] = -later[:, 4:]
    assert model.codes_of(later)[:3].equal(codes[50, :3])


def test_codes_in_use_without_meaning_are_seen_as_such() -> None:
    draws = np.random.default_rng(0)
    codes, buttons = draws.integers(8, size=2000), draws.integers(5, size=2000)
    names = name_codes(codes[:200], buttons[:200], 8, "abcde")
    assert len(np.unique(codes)) == 8
    assert names.accuracy(codes[200:], buttons[200:]) < 0.3


def test_a_guess_that_never_wins_still_learns() -> None:
    torch.manual_seed(0)
    model = ActionModel(4, side=16, width=16, depth=1)
    with torch.no_grad():
        # One guess stays near, the others are far off: codes have collapsed.
        model.down.weight.normal_(std=0.5)
        model.modulation.weight[:, 1:] = 40.0
    frames = to_float(clips(16, 3, 5)[0])
    found = model(frames)
    assert found.codes.unique().tolist() == [0]
    for loss, learns in ((found.error.mean(), False), (found.mean_error.mean(), True)):
        model.zero_grad()
        loss.backward(retain_graph=True)
        assert bool((model.modulation.weight.grad[:, 1:] != 0).any()) is learns


def test_the_quantised_rival_tells_steps_apart() -> None:
    model = learned("fsq", 30)
    frames = to_float(clips(32, 3, 7)[0])
    found = model(frames)
    assert found.codes.min() >= 0
    assert found.codes.max() < 8
    guesses = model.guesses(model.features(*model.cells(frames)[:, :2].unbind(1)))
    assert guesses.shape[:2] == (32, 8)
    # The guess of the code that was said is the one that the error is of.
    change = model.cells(frames)[:, 2] - model.cells(frames)[:, 1]
    own = guesses[torch.arange(32), found.codes]
    errors = ActionModel._errors(own[:, None], change, model._weights(change))[:, 0]
    torch.testing.assert_close(errors, found.mean_error)


def test_a_table_of_names_is_kept_and_tells_what_is_wrong(tmp_path: object) -> None:
    names = name_codes([0, 0, 0, 2, 2], [1, 1, 0, 0, 0], 4, ("stay", "go"))
    assert names.names == ("go", "code 1", "stay", "code 3")
    assert names.pressed == {"stay": 2, "go": 0}
    # Often and pure is better than more often and mixed.
    assert name_codes([0] * 9 + [1] * 4, [1] * 5 + [0] * 4 + [1] * 4, 2, ("stay", "go")).pressed == {"go": 1}
    # An unlabelled code is taken for the most common button.
    assert names.meanings == (1, 0, 0, 0)
    file = tmp_path / "names.json"  # type: ignore[operator]
    assert read_names(file) is None
    names.write(file)
    assert read_names(file) == names
    file.write_text('{"buttons": ["a"], "counts": [[1, 2]]}')
    with pytest.raises(UserError, match="no table of names"):
        read_names(file)
    with pytest.raises(UserError, match="no labelled step"):
        name_codes([], [], 4, ("a",))
    with pytest.raises(UserError, match="power of two"):
        ActionModel(6)
