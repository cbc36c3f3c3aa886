"""The command that shows everything at once."""

from pathlib import Path

from minisora.cli.options import ConfigOption, OutOption, SetOption, check_folder, console, load_config
from minisora.screen import say


def demo(out: OutOption = Path("runs/demo"), config: ConfigOption = "toy", set_: SetOption = None) -> None:
    """Watch a miniature Sora learn: data, VAE, DiT, samples, FLOPs, and one page that shows it all."""
    from minisora.demo.run_demo import run_demo

    check_folder(out)
    page = run_demo(load_config(config, set_), out, console)
    say(console, "Open ", (str(page), "bold"))
