"""Configs: strict, with the nearest right key; saved ones read back equal; every shipped one loads."""

from pathlib import Path

import pytest

from minisora.cli.options import config_of_run
from minisora.config import Config, load, save
from minisora.config_files import config_folder, find, of_run
from minisora.errors import UserError
from minisora.scaling.ladder import read_ladder


def shipped() -> list[Path]:
    return sorted(p for p in config_folder().rglob("*.yaml") if p.parent.name in ("configs", "dit"))


@pytest.mark.parametrize("path", shipped(), ids=lambda p: p.stem)
def test_every_shipped_config_loads_and_says_how_to_run_it(path: Path) -> None:
    load(path)
    assert path.read_text().startswith("#")
    assert "minisora" in path.read_text().split("\n\n")[0]


@pytest.mark.parametrize("path", sorted((config_folder() / "ladder").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_ladder_loads_and_says_how_to_run_it(path: Path) -> None:
    read_ladder(str(path))
    assert path.read_text().startswith("#")
    assert "minisora scale run" in path.read_text().split("\n\n")[0]


def test_a_saved_config_reads_back_equal(tmp_path: Path) -> None:
    config = load(
        "toy", ["dit.width=256", "train_vae.crop=null", "data.path=some/where", "dit.patch=[2,2,2]"]
    )
    save(config, tmp_path / "config.yaml")
    assert load(tmp_path / "config.yaml") == config
    assert config.dit.patch == (2, 2, 2)
    assert config.train_vae.crop is None


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("dit.widht=1", "did you mean 'width'"),
        ("train_dti.steps=1", "did you mean 'train_dit'"),
        ("dit.depth=-1", "config key 'dit.depth' = -1"),
        ("dit.attention=sparse", "config key 'dit.attention' = 'sparse'"),
        ("seed.x=1", "'seed' is a value, not a section"),
        ("dit.width=[", "the value is not YAML"),
        ("dit.num_classes=10", "exclude each other"),
        ("data.source=folder", "needs data.path"),
        ("data.buckets=[{frames: 5, height: 64, width: 64, shares: 0.2}]", "did you mean 'share'"),
        ("data.buckets=[{frames: 5, height: 64}]", "config key 'data.buckets.0.width'"),
        ("dit.patch.time=1", "'patch' is a value, not a section"),
        ("seed=2001-99-99", "the value is not YAML"),
        ("seed=0x_", "the value is not YAML"),
        ('seed=!!int ""', "the value is not YAML"),
        ("seed=4294967296", "config key 'seed' = 4294967296"),
        ("data.validation_seed=-1", "config key 'data.validation_seed' = -1"),
        ("dit.num_classes=0", "config key 'dit.num_classes' = 0"),
        ("train_dit.betas=[0.9, 1.0]", "config key 'train_dit.betas.1' = 1.0"),
        ("train_dit.lr=.inf", "config key 'train_dit.lr' = inf"),
        ("flow.sigma_mean=.nan", "config key 'flow.sigma_mean' = nan"),
    ],
)
def test_a_wrong_setting_names_itself(override: str, said: str) -> None:
    with pytest.raises(UserError, match=said.replace("(", r"\(")) as caught:
        load("toy", [override])
    assert len(str(caught.value).splitlines()) == 1


def test_a_file_that_is_not_a_config(tmp_path: Path) -> None:
    (tmp_path / "list.yaml").write_text("- 1\n- 2\n")
    with pytest.raises(UserError, match="must hold sections"):
        load(tmp_path / "list.yaml")
    (tmp_path / "bad.yaml").write_text("a: [1,\n")
    with pytest.raises(UserError, match="is not YAML"):
        load(tmp_path / "bad.yaml")
    (tmp_path / "date.yaml").write_text("seed: 2001-99-99\n")
    with pytest.raises(UserError, match="is not YAML: month must be"):
        load(tmp_path / "date.yaml")
    (tmp_path / "empty.yaml").write_text("")
    assert load(tmp_path / "empty.yaml") == Config()


def test_shipped_names_are_found_with_and_without_suffix() -> None:
    assert find("toy") == find("toy.yaml") == find("configs/toy.yaml").resolve()
    assert find("dit/xl2_512").name == "xl2_512.yaml"


def test_an_installed_package_reads_no_configs_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site-packages" / "minisora"
    (tmp_path / "site-packages" / "configs").mkdir(parents=True)  # of another wheel, or of a checkout
    package.mkdir()
    monkeypatch.setattr("minisora.config_files.__file__", str(package / "config_files.py"))
    assert config_folder() == tmp_path / "site-packages" / "configs"
    (package / "configs").mkdir()
    assert config_folder() == package / "configs"


def test_a_changed_config_is_as_if_it_had_been_loaded_so(tmp_path: Path) -> None:
    config = load("toy")
    changed = config.replace(
        seed=3, **{"data.buckets": ({"frames": 5, "height": 32, "width": 48},), "data.path": tmp_path}
    )
    buckets = "data.buckets=[{frames: 5, height: 32, width: 48}]"
    assert changed == load("toy", ["seed=3", buckets, f"data.path={tmp_path}"])
    assert changed.train_dit.replace(lr=1) == load("toy", ["train_dit.lr=1"]).train_dit
    assert changed.replace() == changed
    assert config == load("toy")


def test_a_change_in_code_is_checked_as_one_on_the_command_line_is() -> None:
    config = load("toy")
    for key, value, said in (
        ("dit.widht", 1, "did you mean 'width'"),
        ("dit.depth", -1, "'dit.depth' = -1"),
        ("seed.x", 1, "'seed' is a value, not a section"),
        ("data.source", "folder", "needs data.path"),
    ):
        with pytest.raises(UserError, match=said):
            config.replace(**{key: value})
    with pytest.raises(UserError, match="did you mean 'steps'"):
        config.train_dit.replace(stpes=1)


def test_changes_stand_over_the_file_and_under_what_a_user_set() -> None:
    changes = {"train_dit.lr": 5e-4, "train_dit.steps": 7}
    settings = load("toy", ["train_dit.steps=9"], changes).train_dit
    assert (settings.lr, settings.steps) == (5e-4, 9)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ["train_dit.patience=3"],
            "train_dit.patience=3 waits for a better validation: set train_dit.keep=best",
        ),
        (["data.augment.shift=2"], "data.augment.views is 1: set it to 2 or more, or data.augment={}"),
        (
            ["data.augment.views=3"],
            "data.augment.views=3 are all alike: set data.augment.shift, color, mirror or",
        ),
        (["data.augment={views: 2, shift: 17}"], "shift=17 is more than a quarter of the 64 pixels"),
        (
            ["data.augment={views: 2, shift: 9}", "data.buckets=[{frames: 1, height: 32, width: 64}]"],
            "shift=9 is more than a quarter of the 32 pixels of a clip's shortest side: set it to 8 or less",
        ),
        (["data.augment={views: 2, color: 0.6}"], "data.augment.color"),
        (["data.augment={views: 2, speed: 0.5}"], "data.augment.speed"),
        (["data.augment.sped=2"], "did you mean 'speed'"),
    ],
)
def test_augmentation_and_patience_that_would_do_nothing_or_harm_are_refused(
    settings: list[str], message: str
) -> None:
    with pytest.raises(UserError) as caught:
        load("toy", settings)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_config_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match="is not a run folder: it has no config.yaml; pass the --out of minisora train"
    ):
        load(of_run(tmp_path))
    save(load("toy", ["seed=7"]), tmp_path / "config.yaml")
    assert load(of_run(tmp_path), ["dit.depth=3"]) == load("toy", ["seed=7", "dit.depth=3"])
    assert config_of_run(tmp_path, "clips") == str(tmp_path / "config.yaml")
    assert config_of_run(tmp_path / "new", "clips") == "clips"
