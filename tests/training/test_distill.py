"""Distillation: samples that survive a kill, a student that starts as its teacher and takes its few steps."""

import sys
from pathlib import Path

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FlowMatchHeunDiscreteScheduler
from rich.console import Console
from torch import Tensor

from minisora import cli
from minisora.config import load
from minisora.data.batches import TrajectoryBatches
from minisora.data.dataset import open_dataset
from minisora.errors import UserError
from minisora.flow.path import interpolate
from minisora.flow.schedules import euler_sigmas, make_scheduler
from minisora.models.dit import VideoDiT
from minisora.pipelines.model_folder import load_pipeline
from minisora.training.distill import distill_model, make_trajectories, teacher_of
from minisora.training.dit_task import StudentTask

FEW = ["train_dit.steps=2", "train_dit.batch_size=4", "data.num_validation_clips=4"]
QUIET = Console(quiet=True)


@pytest.fixture
def no_sampling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where a teacher is asked for samples."""

    def sampled(*_: object, **__: object) -> None:
        pytest.fail("the teacher sampled")

    monkeypatch.setattr("minisora.training.distill.make_trajectories", sampled)


def test_trajectories_are_the_teachers_way_from_noise_and_are_made_once(
    tiny_run: Path, tmp_path: Path
) -> None:
    teacher = load_pipeline(tiny_run / "model", device="cpu")
    captions = ["a red circle moving left"] * 5
    states = make_trajectories(teacher, captions, tmp_path, 2, batch_size=2)
    assert states.shape == (5, 3, *teacher.latent_shape(*teacher.config.default_size))
    passed: list[Tensor] = []
    latents = teacher(
        captions[3],
        seed=3,
        output_type="latent",
        progress=False,
        callback_on_step_end=lambda _, __, x: passed.append(x),
    ).videos
    assert len(passed) == 4
    torch.testing.assert_close(states[3:4, 0], teacher.noise(1, tuple(states.shape[2:]), 3))
    torch.testing.assert_close(states[3:4, 1], passed[1], atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(states[3:4, 2], latents, atol=1e-3, rtol=1e-3)

    written = next(tmp_path.glob("*.safetensors")).stat().st_mtime_ns
    torch.testing.assert_close(make_trajectories(teacher, captions, tmp_path, 2), states)
    assert next(tmp_path.glob("*.safetensors")).stat().st_mtime_ns == written
    assert (
        len(make_trajectories(teacher, captions[:4], tmp_path, 2)) == 4
    )  # not the first four of another set
    others = ["a blue square moving up", *captions[1:]]
    assert not torch.equal(make_trajectories(teacher, others, tmp_path, 2), states)


def test_trajectories_are_made_anew_where_the_teacher_samples_otherwise(
    tiny_run: Path, tmp_path: Path
) -> None:
    """All that a model folder can say differently, with the same DiT and VAE."""
    teacher = load_pipeline(tiny_run / "model", device="cpu")
    captions = ["a red circle moving left"] * 2
    drawn: list[Path] = []

    def made(windows: int = 2) -> int:
        """How often the DiT ran to make them."""
        passes: list[int] = []
        hook = teacher.dit.register_forward_pre_hook(lambda _, args: passes.append(len(args[0])))
        make_trajectories(teacher, captions, tmp_path, windows)
        hook.remove()
        return len(passes)

    assert made() == 4
    assert made() == 0
    again = load_pipeline(tiny_run / "model", device="cpu")
    make_trajectories(again, captions, tmp_path, 2, progress=lambda *_: drawn.append(tmp_path))
    assert not drawn
    teacher.scheduler = make_scheduler("heun", 2.0)
    assert made() == 0  # in Euler steps all the same
    assert isinstance(teacher.scheduler, FlowMatchHeunDiscreteScheduler)
    assert made(windows=3) == 6  # a multiple of the windows
    teacher.register_to_config(default_guidance=5.0)
    assert made() == 4
    teacher.register_to_config(default_steps=2)
    assert made() == 2
    teacher.register_to_config(sigma_shift=2.0)
    assert made() == 2
    assert teacher.text_encoder is not None
    with torch.no_grad():
        next(teacher.text_encoder.parameters()).add_(1)
    assert made() == 2
    assert made() == 0


def test_a_student_that_has_learned_all_takes_its_teachers_states_one_by_one() -> None:
    """With velocities as the batches have them, Euler steps go through the states themselves."""
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(3, 5, 2, 1, 4, 4, generator=generator)
    sigmas = euler_sigmas(4, 2.0).tolist()
    samples = TrajectoryBatches(states, sigmas, ["a", "b", "c"], seed=0)
    seen = set()
    batch = samples.at(range(60))
    assert batch.sigma is not None
    on_path = interpolate(batch.latents, batch.noise, batch.sigma)
    for row, sample in enumerate(batch.indices):
        window = min(range(4), key=lambda k: abs(sigmas[k] - float(batch.sigma[row])))
        seen.add((sample, window))
        torch.testing.assert_close(on_path.noisy[row], states[sample, window], atol=1e-4, rtol=1e-4)
        step = (sigmas[window + 1] - sigmas[window]) * on_path.velocity[row]
        torch.testing.assert_close(
            on_path.noisy[row] + step, states[sample, window + 1], atol=1e-4, rtol=1e-4
        )
        assert batch.captions[row] == "abc"[sample]
    assert len(seen) == 12


def test_batches_of_a_student_do_not_depend_on_the_split() -> None:
    states = torch.arange(36.0).view(12, 3, 1, 1, 1, 1)
    samples = TrajectoryBatches(states, [1.0, 0.5, 0.0], [str(i) for i in range(12)], seed=0)
    batch = samples.at(range(12))
    assert batch.sigma is not None
    assert set(batch.sigma.tolist()) == {1.0, 0.5}
    assert torch.equal(batch.latents - batch.noise, torch.full((12, 1, 1, 1, 1), 2.0))
    halves = [samples.at(range(6)), samples.at(range(6, 12))]
    assert torch.equal(torch.cat([half.latents for half in halves]), batch.latents)
    assert [level for half in halves for level in half.sigma.tolist()] == batch.sigma.tolist()  # type: ignore[union-attr]
    train, held_out = samples.split(3)
    assert (len(train), len(held_out), held_out.all_captions) == (9, 3, ["9", "10", "11"])


def test_a_student_learns_at_the_noise_levels_of_its_steps_and_takes_them_unguided(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a teacher with Heun's steps and a shift, which the student's Euler steps keep."""
    teacher = load_pipeline(tiny_run / "model", device="cpu")
    teacher.scheduler = make_scheduler("heun", 2.0)
    teacher.register_to_config(sigma_shift=2.0)
    teacher.save_pretrained(tmp_path / "teacher")
    levels: set[float] = set()
    forward = VideoDiT.forward

    def seen(dit: VideoDiT, noisy: Tensor, sigma: Tensor, *said: Tensor) -> Tensor:
        if len(sigma) == 4:  # the batch size; also of validation
            levels.update(sigma.tolist())
        return forward(dit, noisy, sigma, *said)

    out, overrides = tmp_path / "student", [*FEW, "flow.shift=2", "sample.scheduler=heun"]
    config = teacher_of(tiny_run, out)[0]
    make_trajectories(  # before the DiT is watched
        load_pipeline(tmp_path / "teacher", device="cpu"),
        open_dataset(load(config), "train").captions()[:12],
        out / "trajectories",
        3,
    )
    monkeypatch.setattr(VideoDiT, "forward", seen)
    distill_model(
        config, tmp_path / "teacher", out, QUIET, num_samples=12, student_steps=3, overrides=overrides
    )
    assert sorted(levels, reverse=True) == pytest.approx(euler_sigmas(3, 2.0)[:-1].tolist())

    student = load_pipeline(out / "model", device="cpu")
    assert (student.config.default_steps, student.config.default_guidance) == (3, 1.0)
    assert isinstance(student.scheduler, FlowMatchEulerDiscreteScheduler)
    taken: list[Tensor] = []
    student.dit.register_forward_pre_hook(lambda _, args: taken.append(args[1]))
    student("a red circle moving left", progress=False)
    torch.testing.assert_close(torch.cat(taken), euler_sigmas(3, 2.0)[:-1].float())


def test_a_student_is_trained_as_its_own_config_says(tiny_run: Path) -> None:
    teacher = load_pipeline(tiny_run / "model", device="cpu")
    states = torch.randn(8, 3, *teacher.latent_shape(*teacher.config.default_size))
    samples = TrajectoryBatches(states, [1.0, 0.5, 0.0], ["a red circle"] * 8, seed=0)
    config = load(teacher_of(tiny_run, tiny_run / "student")[0])
    for kept in (False, True):
        changed = config.replace(**{"dit.checkpointing": kept, "dit.dropout": 0.25})
        dit = StudentTask(changed, teacher, samples).model.dit
        assert dit.gradient_checkpointing is kept
        assert {block.dropout for block in dit.blocks} == {0.25}
    assert not teacher.dit.gradient_checkpointing


def test_a_folder_without_a_run_and_the_teachers_own_are_refused(tiny_run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no finished run"):
        teacher_of(tmp_path, tmp_path / "out")
    with pytest.raises(UserError, match="the teacher's own run"):
        teacher_of(tiny_run, tiny_run)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("clip.height=64", r"the teacher has clip\.height=32, the config says 64: give the config that"),
        ("clip.fps=4", r"clip\.fps=8\.0, the config says 4\.0"),
        ("vae.widths=[16,16]", r"vae\.widths=\[16, 32\], the config says \[16, 16\]"),
        ("dit.depth=3", r"dit\.depth=2, the config says 3"),
        ("dit.text_conditioning=false", r"dit\.text_conditioning=True, the config says False"),
        ("text.max_tokens=12", r"text\.max_tokens=24, the config says 12"),
        ("flow.shift=3", r"flow\.shift=1\.0, the config says 3\.0"),
    ],
)
def test_a_config_of_another_model_is_refused_before_sampling(
    override: str, said: str, tiny_run: Path, tmp_path: Path, no_sampling: None
) -> None:
    with pytest.raises(UserError, match=said):
        distill_model(
            *teacher_of(tiny_run, tmp_path), tmp_path, QUIET, num_samples=4, overrides=[*FEW, override]
        )
    assert not list(tmp_path.iterdir())


def test_the_shipped_toy_has_the_config_that_is_taken_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sampled(*_: object, **__: object) -> None:
        raise InterruptedError

    monkeypatch.setattr("minisora.training.distill.make_trajectories", sampled)
    with pytest.raises(UserError, match=r"vae\.encoder_blocks=None, the config says 1"):
        distill_model("toy", "toy", tmp_path, QUIET, num_samples=1)
    with pytest.raises(InterruptedError):  # nothing to refuse
        distill_model("modes", "toy", tmp_path, QUIET, num_samples=1)


def test_a_run_with_another_student_is_refused_and_its_samples_stay(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, model = teacher_of(tiny_run, tmp_path)
    out = tmp_path / "student"
    distill_model(config, model, out, QUIET, num_samples=4, overrides=FEW)
    kept = {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}
    other = load_pipeline(model, device="cpu")
    other.register_to_config(default_guidance=5.0)
    other.save_pretrained(tmp_path / "other")

    refused = [
        (tmp_path / "other", 4, FEW, "the student of another teacher, or of other captions or --steps"),
        (model, 3, FEW, "the student of another teacher, or of other captions or --steps"),
        (model, 257, FEW, "the student of another teacher, or of other captions or --steps"),
        (model, 4, [*FEW, "train_dit.lr=1e-3"], r"train_dit\.lr=0\.0005, now it is 0\.001"),
    ]
    with monkeypatch.context() as patch:
        patch.setattr("minisora.training.distill.make_trajectories", lambda *_, **__: pytest.fail("sampled"))
        for teacher, samples, overrides, said in refused:
            with pytest.raises(UserError, match=f"{said}.*another --out"):
                distill_model(config, teacher, out, QUIET, num_samples=samples, overrides=overrides)
        with pytest.raises(UserError, match="of other captions or --steps .*another --out"):
            distill_model(config, model, out, QUIET, num_samples=4, student_steps=2, overrides=FEW)
        # A run of other stages has no samples at all.
        (tmp_path / "plain" / "model").mkdir(parents=True)
        with pytest.raises(UserError, match="holds a model that did not learn from .*use another --out"):
            distill_model(config, model, tmp_path / "plain", QUIET, num_samples=4, overrides=FEW)
    assert {file: file.read_bytes() for file in out.rglob("*") if file.is_file()} == kept
    distill_model(config, model, out, QUIET, num_samples=4, overrides=[*FEW, "train_dit.steps=3"])  # goes on
    shard = next((out / "trajectories").iterdir())
    shard.write_bytes(b"cut short")  # of this student: made anew
    distill_model(config, model, out, QUIET, num_samples=4, overrides=[*FEW, "train_dit.steps=3"])
    assert shard.read_bytes() == kept[shard]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "toy", "--samples", "0"], "--samples"),
        (["--model", "toy", "--samples", "-1"], "--samples"),
        (["--model", "toy", "--steps", "0"], "--steps"),
        (["--run", "RUN", "--config", "modes"], "--config modes goes with --model: --run RUN has its own"),
    ],
)
def test_options_that_cannot_work_are_refused(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    no_sampling: None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(sys, "argv", ["minisora", "distill", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 2
    assert said in capsys.readouterr().err


def test_numbers_below_one_are_refused_from_python_too(tiny_run: Path, tmp_path: Path) -> None:
    config, model = teacher_of(tiny_run, tmp_path)
    with pytest.raises(UserError, match="num_samples = 0 must be at least 1"):
        distill_model(config, model, tmp_path, QUIET, num_samples=0)
    with pytest.raises(UserError, match="student_steps = 0 must be at least 1"):
        distill_model(config, model, tmp_path, QUIET, num_samples=1, student_steps=0)
    with pytest.raises(UserError, match="no captions to sample the teacher with"):
        make_trajectories(load_pipeline(model, device="cpu"), [], tmp_path, 2)
