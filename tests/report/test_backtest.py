import json
import math
import subprocess
import sys
from statistics import median

import pytest

from minisora.report.backtest import BacktestRow, backtest, implication
from minisora.report.video_models import Fact, VideoModel, load_models


@pytest.fixture(scope="module")
def models() -> dict[str, VideoModel]:
    return {model.name: model for model in load_models()}


@pytest.fixture(scope="module")
def rows(models: dict[str, VideoModel]) -> list[BacktestRow]:
    return backtest(list(models.values()))


def timed(rows: list[BacktestRow], model: str, case: str) -> BacktestRow:
    return next(row for row in rows if row.model == model and row.case == case and row.seconds_disclosed)


def training(rows: list[BacktestRow], model: str) -> BacktestRow:
    return next(row for row in rows if row.model == model and row.case.endswith("training"))


@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        ("CogVideoX-5B", 17_550),
        ("HunyuanVideo", 118_800),
        ("Wan 2.1 1.3B", 32_760),
        ("Wan 2.1 14B", 75_600),
        ("LTX-Video 2B", 6_144),
        ("Mochi 1", 44_520),
        ("Step-Video-T2V", 75_888),
        ("Allegro", 79_200),
        ("Movie Gen Video", 73_728),
        ("Cosmos-1.0-Diffusion-7B", 56_320),
        ("Open-Sora 2.0", 76_000),
        ("Pyramid Flow", 119_040),
        ("EasyAnimate V5.1 12B", 53_248),
        ("DiT-XL/2 (image)", 1_024),
    ],
)
def test_tokens_are_those_of_the_makers(models: dict[str, VideoModel], name: str, tokens: int) -> None:
    grid = models[name].grid()
    assert grid is not None
    assert grid[0] * grid[1] == pytest.approx(tokens, rel=0.02)


def test_disclosed_tokens_are_met(rows: list[BacktestRow]) -> None:
    factors = [row.factors["tokens_factor"] for row in rows if row.factors["tokens_factor"]]
    assert len(factors) >= 7
    assert factors == pytest.approx([1] * len(factors), rel=0.02)


def test_a_vae_that_starts_anew_keeps_a_frame_more_a_chunk(models: dict[str, VideoModel]) -> None:
    grid = models["Step-Video-T2V"].grid((204, 544, 992))
    assert grid == (12 * 3, 34 * 62)  # 204 / 17 chunks of 1 + 16 / 8
    assert models["Open-Sora 1.2"].grid((102, 720, 1280)) == (30, 45 * 80)
    assert models["Step-Video-T2V"].grid((20, 544, 992)) == (3 + 2, 34 * 62)  # a chunk, and three frames


def test_sizes_follow_from_shapes(rows: list[BacktestRow]) -> None:
    found = {row.model: row.factors["params_factor"] for row in rows if row.params}
    assert len(found) >= 20
    # CogVideoX-2B has 1.69e9 weights: its name rounds them up by 18 %, and the closed form gives 1.68e9.
    assert found.pop("CogVideoX-2B") == pytest.approx(0.84, abs=0.01)
    assert {name: factor for name, factor in found.items() if factor and abs(factor - 1) > 0.15} == {}


@pytest.mark.parametrize(
    ("name", "weights"),  # counted on diffusers' classes
    [
        ("CogVideoX-2B", 1.694e9),
        ("CogVideoX-5B", 5.570e9),
        ("Mochi 1", 10.028e9),
        ("LTX-Video 2B", 1.923e9),
        ("Allegro", 2.772e9),
        ("Wan 2.1 14B", 14.288e9),
        ("Wan 2.1 1.3B", 1.419e9),
    ],
)
def test_the_closed_form_of_size_is_that_of_the_released_code(
    models: dict[str, VideoModel], name: str, weights: float
) -> None:
    assert models[name].closed_form_params() == pytest.approx(weights, rel=0.025)


def test_dit_costs_what_its_paper_says(rows: list[BacktestRow]) -> None:
    row = next(row for row in rows if row.model.startswith("DiT"))
    assert row.factors["flops_factor"] == pytest.approx(1, rel=1e-3)
    # MACs called FLOPs, and half of the passes of guidance: the report's method gives a quarter of it.
    assert row.factors["naive_over_our_flops"] == pytest.approx(1 / 4, rel=2e-3)


@pytest.mark.parametrize(
    ("name", "case", "compute", "share", "mfu"),
    [
        ("Wan 2.1 14B", "81x720x1280, 1 x H100 SXM", 6.52e17, 0.72, 0.359),
        ("Wan 2.1 14B", "81x720x1280, 8 x H100 SXM", 6.52e17, 0.72, 0.286),
        ("Wan 2.1 14B", "81x480x832, 1 x H100 SXM", 1.68e17, 0.53, 0.363),
        ("Wan 2.1 1.3B", "81x480x832, 1 x H100 SXM", 2.83e16, 0.70, 0.301),
        ("HunyuanVideo", "129x720x1280, 1 x H100 SXM", 6.03e17, 0.87, 0.361),
        ("CogVideoX-5B", "49x480x720, 1 x H100 SXM", 3.32e16, 0.49, 0.373),
        ("Step-Video-T2V", "204x544x992, 4 x H100 SXM", 1.07e18, 0.64, 0.363),
    ],
)
def test_compute_and_the_utilisation_it_implies(
    rows: list[BacktestRow], name: str, case: str, compute: float, share: float, mfu: float
) -> None:
    row = timed(rows, name, case)
    assert row.flops_per_clip == pytest.approx(compute, rel=0.01)
    assert row.attention_share == pytest.approx(share, abs=0.01)
    assert row.mfu == pytest.approx(mfu, abs=0.015)


def test_many_models_are_scored_on_time_or_training(rows: list[BacktestRow]) -> None:
    scored = {row.model for row in rows if row.factors["seconds_factor"] or row.factors["training_factor"]}
    assert len(scored) >= 12
    # A utilisation above the peak would be an error of ours.
    for row in rows:
        assert row.mfu is None or 0 < row.mfu < 0.7


def slower(model: VideoModel, factor: float) -> VideoModel:
    changed = [
        run.model_copy(update={"seconds": Fact(value=run.seconds.value * factor, source=run.source)})
        for run in model.runs
        if run.seconds
    ]
    return model.model_copy(update={"runs": changed})


def test_a_latency_does_not_move_its_own_prediction(
    models: dict[str, VideoModel], rows: list[BacktestRow]
) -> None:
    for name in ("HunyuanVideo", "Wan 2.1 14B", "Allegro"):
        others = [slower(model, 1.5) if model.name == name else model for model in models.values()]
        after = [row for row in backtest(others) if row.model == name]
        before = [row for row in rows if row.model == name]
        assert [row.seconds for row in after] == [row.seconds for row in before]
        assert [row.mfu for row in after] != [row.mfu for row in before]


def test_a_latency_moves_the_predictions_of_others(
    models: dict[str, VideoModel], rows: list[BacktestRow]
) -> None:
    slow = [model if model.name == "Allegro" else slower(model, 2.0) for model in models.values()]
    after = next(row for row in backtest(slow) if row.model == "Allegro" and row.gpus == 1)
    before = timed(rows, "Allegro", after.case)
    assert before.seconds is not None
    assert after.seconds == pytest.approx(2 * before.seconds)


def test_a_developer_is_left_out_whole(models: dict[str, VideoModel]) -> None:
    alone = [models["Wan 2.1 14B"], models["Wan 2.1 1.3B"]]
    rows = backtest(alone)
    assert {row.mfu_of_others for row in rows} == {row.seconds for row in rows} == {None}
    # A card of unknown peak is compared in size alone.
    assert {row.gpu for row in rows if row.factors["seconds_in_sample_factor"] is None} == {"RTX 4090"}


def test_the_same_card_sets_the_utilisation(models: dict[str, VideoModel]) -> None:
    pair = [models["Allegro"], models["HunyuanVideo"], models["CogVideoX-5B"]]
    found = {row.case: row for row in backtest(pair) if row.model == "Allegro"}
    others = [
        median(row.mfu for row in backtest([model]) if row.mfu and row.gpu in ("H100 SXM", "H800 SXM"))
        for model in pair[1:]
    ]
    assert found["88x720x1280, 1 x H100 SXM"].mfu_of_others == pytest.approx(sum(others) / 2)


def test_training_is_three_passes_over_the_samples(rows: list[BacktestRow]) -> None:
    movie_gen = training(rows, "Movie Gen Video")
    # Every clip at full length: a bound.
    assert movie_gen.training_flops == pytest.approx(2.9e24, rel=0.02)
    assert movie_gen.training_flops_disclosed == pytest.approx(1.25e6 * 3600 * 989.4e12 * 0.36)
    assert movie_gen.training_mfu_is_assumed
    seaweed = training(rows, "Seaweed-7B")
    assert seaweed.training_flops_disclosed == pytest.approx(9.0e23, rel=0.01)
    assert seaweed.training_flops is None
    small = training(rows, "Open-Sora 1.0")
    assert small.grade == "primary"
    assert small.training_mfu_implied is not None
    # Small blocks, recomputation, encoders: far from 0.36.
    assert small.training_mfu_implied < 0.1


def test_a_step_of_training_is_three_passes_over_its_samples(rows: list[BacktestRow]) -> None:
    case = "93x720x1280, 8 x H100 SXM, a training step"
    steps = [row for row in rows if row.model == "Open-Sora Plan 1.2" and row.case == case]
    assert len(steps) == 3
    one = timed(rows, "Open-Sora Plan 1.2", "93x720x1280, 1 x H100 SXM")
    for row, (samples, seconds) in zip(steps, [(8, 100), (4, 53), (2, 27)], strict=True):
        assert one.flops_per_clip is not None
        # 100 steps of 2 passes make a clip.
        assert row.training_flops == pytest.approx(one.flops_per_clip / 200 * 3 * samples)
        assert row.training_mfu_implied == pytest.approx((row.training_flops or 0) / (8 * seconds * 989.4e12))
        assert row.seconds is None
        assert row.mfu is None


def test_a_step_is_graded_by_what_is_read_of_it(models: dict[str, VideoModel]) -> None:
    model = models["Cosmos-Predict2-2B"]
    assert model.timed_steps
    clip, step = model.timings[0], model.timed_steps[0]
    doubted = model.model_copy(update={"steps": Fact(value=35, source="unchecked")})
    assert doubted.grade(clip) == "unverified"
    assert doubted.grade(step) == model.grade(step) == "primary"
    doubted_step = step.model_copy(update={"samples": Fact(value=4, source="unchecked")})
    assert model.grade(doubted_step) == "unverified"


def test_the_naive_method_is_far_off_in_one_direction(rows: list[BacktestRow]) -> None:
    for row in rows:
        ours, naive = row.factors["seconds_factor"], row.factors["naive_seconds_factor"]
        if ours and naive:
            assert naive < 0.12
            assert abs(math.log(ours)) < abs(math.log(naive))
        if row.factors["naive_training_factor"]:
            assert row.factors["naive_training_factor"] < 0.2


def test_what_it_implies_for_sora(rows: list[BacktestRow]) -> None:
    implied = implication(rows)
    assert implied["minutes_per_h100_hour_by_the_report"] == pytest.approx(5.03, abs=0.01)
    assert 0.28 < implied["median_mfu"] < 0.40
    low, high = implied["time_correction_interval"]
    assert low < 1 < high
    assert low < implied["time_correction"] < high
    assert implied["naive_time_correction"] > 10
    # 0.42 min at full use and full attention.
    assert implied["minutes_per_h100_hour"] == pytest.approx(0.42 * implied["median_mfu"], rel=0.02)
    low, high = implied["minutes_per_h100_hour_interval"]
    assert low < implied["minutes_per_h100_hour"] < high
    json.dumps(implied, allow_nan=False)


def test_few_models_give_no_interval(models: dict[str, VideoModel]) -> None:
    implied = implication(backtest([models["Wan 2.1 14B"], models["Allegro"]]))
    assert implied["models_in_time_correction"] == 2
    assert implied["time_correction_interval"] is None
    nothing = implication([])
    assert nothing["median_mfu"] is None
    assert nothing["minutes_per_h100_hour"] is None


def test_unverified_rows_can_be_left_out(models: dict[str, VideoModel], rows: list[BacktestRow]) -> None:
    verified = backtest(list(models.values()), include_unverified=False)
    assert 0 < len(verified) < len(rows)
    assert {row.grade for row in verified} == {"primary"}
    assert {row.grade for row in rows} == {"primary", "secondary", "unverified"}
    # The assumed card of the README's timing does not cast doubt on the timing of a known one.
    grades = [row.grade for row in rows if row.model == "Open-Sora 1.2" and row.seconds_disclosed]
    assert "unverified" in grades
    assert "secondary" in grades


def test_rows_are_json_of_one_shape(rows: list[BacktestRow]) -> None:
    written = json.loads(json.dumps([row.to_dict() for row in rows], allow_nan=False))
    assert len({tuple(row) for row in written}) == 1
    assert "Step-Video-T2V" in {row["model"] for row in written}


def test_the_back_test_needs_no_torch() -> None:
    code = "import sys, minisora.report.backtest; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
