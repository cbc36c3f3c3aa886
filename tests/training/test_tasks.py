"""Validation over several processes: the sums of one, in as many forward passes each."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from minisora.config import Config, override
from minisora.data.dataset import open_dataset
from minisora.errors import UserError
from minisora.models.build import build_vae
from minisora.pipelines.model_folder import load_pipeline
from minisora.training.captioning import CaptionTask
from minisora.training.dit_task import DiTTask
from minisora.training.tasks import validation_parts
from minisora.training.vae_task import VAETask


class Source:
    """Random latents of the tiny config's shape."""

    def __init__(self, count: int):
        self.values = torch.randn(count, 4, 3, 4, 4, generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return len(self.values)

    def latents(self, indices: Sequence[int]) -> Tensor:
        return self.values[list(indices)]

    def captions(self) -> list[str]:
        return [f"a red circle {index % 3}" for index in range(len(self))]


@pytest.mark.parametrize("count", [0, 1, 3, 16, 17, 33])
@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_every_process_has_as_many_parts_and_every_position_counts_once(count: int, world: int) -> None:
    parts = [list(validation_parts(count, rank, world, 4)) for rank in range(world)]
    assert len({len(each) for each in parts}) == 1
    counted = [position for each in parts for part, weight in each for position in part if weight]
    assert sorted(counted) == list(range(count))
    assert all(0 <= position < count for each in parts for part, _ in each for position in part)
    if world == 1:
        assert all(weight == 1 for _, weight in parts[0])


@pytest.mark.parametrize("name", ["vae", "dit", "caption"])
def test_two_processes_make_as_many_forward_passes_and_sum_up_to_one(name: str, tiny_config: Config) -> None:
    task: VAETask | DiTTask | CaptionTask
    if name == "vae":
        config = override(tiny_config, ["data.num_validation_clips=17"])
        task = VAETask(config, open_dataset(config, "train"), open_dataset(config, "validation"))
    elif name == "dit":
        task = DiTTask(tiny_config, build_vae(tiny_config), Source(8), Source(33))
    else:
        task = CaptionTask(tiny_config, Source(8), Source(33))
    task.model.eval()
    passes: list[None] = []
    task.model.register_forward_hook(lambda *_: passes.append(None))
    whole = task.validate(task.model, 0, 1)
    shares, made = [], []
    for rank in range(2):
        passes.clear()
        shares.append(task.validate(task.model, rank, 2))
        made.append(len(passes))
    assert made == [2, 2]
    for key, value in whole.items():
        # A captioner's loss is a mean over the words of a batch: other batches, slightly other weights.
        torch.testing.assert_close(shares[0][key] + shares[1][key], value, rtol=1e-3, atol=1e-3)
    assert float(whole["count"]) == (17 if name == "vae" else 33)


def test_a_vae_begins_with_the_weights_of_another_that_fit(tiny_config: Config) -> None:
    shipped = load_pipeline("toy", "cpu").vae
    like = tiny_config.replace(
        **{f"vae.{key}": shipped.config[key] for key in ("widths", "latent_channels", "blocks_per_level")},
        **{"vae.encoder_blocks": None, "train_vae.init": "toy"},
    )
    train, validation = (open_dataset(like, split) for split in ("train", "validation"))
    task = VAETask(like, train, validation)
    for name, value in task.model.named_parameters():
        assert torch.equal(value, shipped.get_parameter(name)), name
    other = VAETask(like.replace(**{"vae.latent_channels": 5}), train, validation)
    assert "of toy" in other.describe()["begins with"]
    with pytest.raises(UserError, match="have the shape of this config"):
        VAETask(like.replace(**{"vae.widths": (24, 40)}), train, validation)


def test_a_vae_also_learns_what_halved_latents_show(tiny_config: Config) -> None:
    clips = open_dataset(tiny_config, "train"), open_dataset(tiny_config, "validation")

    def loss(*settings: str) -> Tensor:
        task = VAETask(override(tiny_config, list(settings)), *clips)
        return task.loss(task.model, task.source.at(range(2)))[0]

    plain, weighed = loss(), loss("train_vae.scale_equivariance=0.5")
    twice = loss("train_vae.scale_equivariance=1")
    torch.testing.assert_close(twice - plain, 2 * (weighed - plain))
    assert weighed > plain
    with pytest.raises(UserError, match="scale_equivariance halves latents, but a crop of"):
        loss("train_vae.scale_equivariance=1", "train_vae.crop=[1,8,8]")
