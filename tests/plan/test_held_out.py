import json
import math
import subprocess
import sys
from pathlib import Path
from statistics import median

import pytest
from scipy.special import stdtrit
from typer.testing import CliRunner

from minisora.cli import app, main
from minisora.flops.machines import shipped_calibrations
from minisora.plan.answer import plan, product
from minisora.plan.held_out import Evidence, HeldOut, evidence, interval_of_errors, weigh
from minisora.plan.question import ask, card_named
from minisora.plan.scores import back_test_tree
from minisora.plan.subject import named
from minisora.report.one_more import one_more, students_t
from minisora.report.video_models import Fact, VideoModel, load_models


def slower(model: VideoModel, factor: float) -> VideoModel:
    runs = [
        run.model_copy(update={"seconds": Fact(value=run.seconds.value * factor, source=run.seconds.source)})
        if run.seconds
        else run
        for run in model.runs
    ]
    return model.model_copy(update={"runs": runs})


def seconds_of(known: Evidence, developer: str) -> list[float]:
    return [row.predicted for row in known.of("seconds") if row.developer == developer]


def test_a_developers_own_times_do_not_move_its_predictions_and_others_do() -> None:
    models, known = load_models(), evidence()
    own = weigh([slower(m, 2.0) if m.developer == "Alibaba" else m for m in models])
    assert seconds_of(own, "Alibaba") == seconds_of(known, "Alibaba")
    others = weigh([m if m.developer == "Alibaba" else slower(m, 2.0) for m in models])
    assert all(
        new > 1.5 * old
        for new, old in zip(seconds_of(others, "Alibaba"), seconds_of(known, "Alibaba"), strict=True)
    )


def test_most_of_what_was_disclosed_is_met() -> None:
    tree = back_test_tree()
    assert tree["seconds"]["models"] >= 10
    assert tree["seconds"]["models_within_2"] >= 0.9 * tree["seconds"]["models"]
    assert tree["training"]["models_within_2"] >= 0.85 * tree["training"]["models"] >= 0.85 * 7
    assert tree["memory"]["models_within_1.25"] >= 0.8 * tree["memory"]["models"] >= 0.8 * 10
    assert tree["memory"]["within_1.25"] >= 0.8 * tree["memory"]["rows"] >= 0.8 * 40


def test_a_training_is_predicted_from_what_others_reached() -> None:
    known = evidence()
    rows = known.of("training")
    assert {"Seaweed-7B", "Cosmos-Predict2-14B", "Open-Sora 1.0"} <= {row.model for row in rows}
    shares = sorted(1 / row.disclosed[0] for row in rows)
    assert shares[0] < known.train < shares[-1]
    # Step-Video's prediction is the median model of the other developers.
    others: dict[str, list[float]] = {}
    for row in rows:
        if row.model != "Step-Video-T2V":
            others.setdefault(row.model, []).append(1 / row.disclosed[0])
    step = next(row for row in rows if row.model == "Step-Video-T2V")
    assert 1 / step.predicted == pytest.approx(median(median(each) for each in others.values()))


def test_what_is_made_in_a_time_is_the_less_the_longer_it_takes() -> None:
    answers = {
        each.line.name: each for each in plan(ask(named("wan 14b"), card=card_named("h100 sxm"))).answers()
    }
    seconds, rate = answers["clip_seconds"].interval, answers["clips_per_hour"].interval
    assert seconds
    assert rate
    assert rate == pytest.approx((3600 / seconds[1], 3600 / seconds[0]))


def test_factors_that_multiply_widen_each_other() -> None:
    one, other = (0.5, 2.0), (0.6, 1.8)
    both = product(one, other)
    assert both
    assert both[0] < 0.5 < 2.0 < both[1]
    assert product(one) == pytest.approx(one)
    assert product((1.2, 3.0)) == pytest.approx((1.2, 3.0))
    assert product(one, None) is None


def test_a_number_that_can_mean_two_things_is_met_by_either() -> None:
    row = HeldOut("m", "d", "", "memory", (9.0, 10.0), 9.5, "primary")
    assert row.error == 1
    assert HeldOut("m", "d", "", "memory", (9.0, 10.0), 20.0, "primary").error == 0.5


def test_one_more_value_lies_where_students_t_says() -> None:
    # Of 1, 2, 3: middle 2, deviation 1, and t of two degrees of freedom at 95 % is 2.920.
    ends = one_more([1.0, 2.0, 3.0])
    assert ends
    spread = 2.919986 * (4 / 3) ** 0.5
    assert ends == pytest.approx((math.exp(2 - spread), math.exp(2 + spread)), rel=1e-6)
    assert one_more([1.0, 2.0]) is None


@pytest.mark.parametrize("share", [0.5, 0.75, 0.95, 0.975])
def test_students_t_is_scipys(share: float) -> None:
    for degrees in (1, 2, 3, 5, 10, 30, 200):
        assert students_t(degrees, share) == pytest.approx(float(stdtrit(degrees, share)), rel=1e-6, abs=1e-9)


def test_few_developers_have_no_interval_and_scattered_ones_a_wide_one() -> None:
    def rows(*errors: float) -> list[HeldOut]:
        return [HeldOut("m", str(i), "", "seconds", (e, e), 1.0, "primary") for i, e in enumerate(errors)]

    assert interval_of_errors(rows(1.0, 1.1)) is None
    narrow, wide = interval_of_errors(rows(1.0, 1.1, 0.9, 1.0)), interval_of_errors(rows(1.0, 2.0, 0.5, 1.0))
    assert narrow
    assert wide
    assert wide[0] < narrow[0] < 1 < narrow[1] < wide[1]


def test_rows_that_scatter_widen_the_interval_beside_developers_that_do() -> None:
    def rows(*errors: float) -> list[HeldOut]:
        own = [HeldOut("m", str(i), "", "seconds", (e, e), 1.0, "primary") for i, e in enumerate(errors)]
        more = [
            HeldOut("m", str(i), "", "seconds", (1 / e, 1 / e), 1.0, "primary") for i, e in enumerate(errors)
        ]
        return own + more

    # Every developer's mean is 1; only its rows differ: the spread is that of the rows.
    assert interval_of_errors(rows(1.0, 1.0, 1.0)) == pytest.approx((1.0, 1.0))
    wide = interval_of_errors(rows(2.0, 2.0, 2.0))
    assert wide == pytest.approx(one_more([0.0, 0.0, 0.0], beside=2 * math.log(2) ** 2))
    assert wide
    assert wide[1] > 2


def test_a_developer_whose_rows_are_all_off_widens_the_interval_by_its_one_vote() -> None:
    def rows(*developers: list[float]) -> list[HeldOut]:
        return [
            HeldOut("m", str(i), "", "seconds", (e, e), 1.0, "primary")
            for i, errors in enumerate(developers)
            for e in errors
        ]

    # Of nine developers the one that is off has a tenth of ten votes, with which the interval is to end.
    alike = [[1.0, 1.02, 0.98]] * 8
    assert interval_of_errors(rows(*alike, [1.6, 1.7, 1.8])) == pytest.approx((1 / 1.8, 1.8))
    # Of nineteen nine tenths are gathered before it is reached, and Student's t is the wider one.
    many = interval_of_errors(rows(*alike, *alike, *alike[:2], [1.6, 1.7, 1.8]))
    assert many
    assert many[1] < 1.6
    # Of fewer than nine as far as any.
    few = interval_of_errors(rows([1.0], [1.0, 1.0], [1.0], [0.5] + 20 * [1.0]))
    assert few
    assert few[0] <= 0.5


def test_rows_that_were_disclosed_lie_in_the_intervals_of_the_others() -> None:
    tree = back_test_tree()
    for quantity in ("seconds", "training", "memory"):
        assert tree[quantity]["covered"] >= 0.9 * tree[quantity]["tested"] > 0


def test_bytes_are_scored_on_cards_that_are_not_listed_and_seconds_are_not() -> None:
    rows = [row for row in evidence().rows if "RTX 4090" in row.case]
    assert {row.quantity for row in rows} == {"memory"}
    assert {row.model for row in rows} == {"Wan 2.1 1.3B", "SkyReels V1"}


def test_text_encoders_may_be_kept_in_another_format() -> None:
    """Cosmos loads T5 as it is stored, in float32: twice its 4.865e9 weights in bfloat16."""
    models = {model.name: model for model in load_models()}
    cosmos = models["Cosmos-1.0-Diffusion-7B"]
    rows = [row for row in weigh([cosmos]).of("memory") if "swapped" not in row.case]
    plain = cosmos.model_copy(
        update={"runs": [run.model_copy(update={"text_weights": None}) for run in cosmos.runs]}
    )
    others = [row for row in weigh([plain]).of("memory") if "swapped" not in row.case]
    for row, other in zip(rows, others, strict=True):
        assert row.predicted - other.predicted == pytest.approx(2 * 4.865e9)


def test_the_intervals_cover_what_was_left_out() -> None:
    for quantity in ("seconds", "training", "memory"):
        tree = back_test_tree()[quantity]
        assert tree["models_covered"] >= 0.9 * tree["models_tested"] > 0


def test_every_number_has_a_kind_a_source_and_where_it_is_not_exact_an_interval() -> None:
    for train in (False, True):
        question = ask(
            named("wan 14b"), card=card_named("h100 sxm"), train=train, samples=1e6 if train else 0.0
        )
        for answer in plan(question).answers():
            assert answer.kind
            assert answer.source
            if answer.line.unit in ("s", "$", "kWh", "days", "card-hours"):
                assert answer.interval
                assert answer.value
                assert answer.interval[0] < answer.value < answer.interval[1]


def test_a_share_of_a_card_says_whether_models_were_timed_on_it() -> None:
    def told(card: str) -> str:
        made = plan(ask(named("cogvideox-2b"), card=card_named(card), precision="float16"))
        return next(each.source for each in made.answers() if each.line.name == "clip_seconds")

    assert told("a100 80gb").endswith("(the middle of models timed on it)")
    assert told("v100").endswith("(the middle of models timed on any card, as none was timed on it)")


def test_a_machine_of_ones_own_has_the_spread_of_its_passes() -> None:
    path = shipped_calibrations()[-1].path
    question = ask(named("wan 14b"), card=card_named(str(path)), precision="float32")
    seconds = next(each for each in plan(question).answers() if each.line.name == "clip_seconds")
    assert seconds.kind == "measured"
    assert seconds.value
    assert seconds.interval
    assert seconds.interval[0] < seconds.value < seconds.interval[1]


def test_the_command_prints_and_writes_the_same(tmp_path: Path) -> None:
    out = tmp_path / "plan.json"
    done = CliRunner().invoke(app, ["plan", "wan 14b", "--cards", "8", "--under", "600", "--json", str(out)])
    assert done.exit_code == 0, done.output
    tree = json.loads(out.read_text())
    assert "Wan 2.1 14B" in done.output
    assert tree["answers"]["tokens"]["value"] == 75_600
    assert tree["question"]["sequence"] == 8
    assert tree["under"]["ways"]


def test_an_answer_needs_no_torch() -> None:
    """A plan and its help take under a second because nothing heavy is imported for them."""
    program = (
        "import sys\nfrom minisora.cli import app, main\n"
        "for line in (['plan', '--help'], ['plan', 'wan 14b', '--under', '60'], ['plan', '--config', 'toy']):\n"
        "    try:\n        app(line, standalone_mode=False)\n    except SystemExit:\n        pass\n"
        "heavy = {'torch', 'diffusers', 'scipy', 'matplotlib'} & set(sys.modules)\n"
        "print('heavy:', sorted(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "heavy: []"
    assert "Examples" in done.stdout or "minisora plan" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["wan 14b", "--card", "H100 SMX"], "did you mean 'H100 SXM'"),
        (["wan 14b", "--frames", "80"], "--frames 81"),
        (["wan 14b", "--tensor", "64", "--cards", "64"], "40 heads"),
        (["wan 14b", "--size", "480"], "HEIGHTxWIDTH"),
        (["wan 14b", "--samples", "1M"], "--train"),
        (["wan 14b", "--vae", "4x16x16"], "--vae would do nothing"),
        ([], "give one of MODEL"),
        (["wan 14b", "--train", "--under", "60"], "--train would do nothing beside --under"),
        (["wan 14b", "--under", "0"], "under = 0.0 must be above 0"),
        (["wan 14b", "--set", "num_layers=2"], "--set would do nothing"),
        (["diffusers:WanTransformer3DModel", "--vae", "4x8x8"], "must be a class too"),
        (["diffusers:WanTransformer3DModel", "--set", "num_layers"], "is not KEY=VALUE"),
        (["wan 14b", "--rank", "8"], "--rank would do nothing"),
        (["wan 14b", "--train", "--rank", "9000"], "at most 5120"),
        (["wan 14b", "--active", "5B"], "--active would do nothing"),
        (["--back-test", "--page", "x.html"], "--page would do nothing beside --back-test"),
        (["--back-test", "--config", "toy", "--under", "60"], "--config and --under would do nothing"),
        (["wan 14b", "--back-test"], "MODEL would do nothing"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["minisora", "plan", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    printed, error = capsys.readouterr()
    assert not printed
    assert message in error
    assert len(error.splitlines()) == 1
