"""A folder of a ladder's results: which ladder they belong to, and a JSON object a line for each run, never twice.

OUT/ladder.yaml       the ladder, and what all its runs shared
   /results.jsonl     finished runs, each appended whole when it is done
   /failures.jsonl    runs that failed, with the reason; tried again by the next start
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock
from pydantic import ValidationError

from minisora.config import Config
from minisora.config_files import read_yaml
from minisora.errors import UserError
from minisora.files import write_whole
from minisora.scaling.ladder import LadderConfig, plan, shared_config

RunRow = dict[str, Any]
_NUMBERS = ("times", "dial", "epochs", "batch", "lr", "params", "samples", "flops_per_step", "flops", "loss")


@dataclass(frozen=True)
class LadderFile:
    """What makes two rows of results comparable: OUT/ladder.yaml."""

    # But for its guess of time.
    ladder: LadderConfig
    # What all runs share.
    config: Config

    @classmethod
    def of(cls, ladder: LadderConfig) -> "LadderFile":
        """The file of a ladder as it is now."""
        speed = LadderConfig.model_fields["flops_per_second"].default
        return cls(ladder.model_copy(update={"flops_per_second": speed}), shared_config(ladder))

    @classmethod
    def read(cls, out: Path) -> "LadderFile":
        """The file in a folder of results.

        Raises:
            UserError: there are none, or the file is of another format.
        """
        file = out / "ladder.yaml"
        if not file.is_file():
            raise UserError(
                f"no ladder in {out}: start one with 'minisora scale run --ladder cpu --out {out}'"
            )
        tree = read_yaml(file)
        try:
            return cls(LadderConfig.model_validate(tree["ladder"]), Config.model_validate(tree["config"]))
        except (KeyError, ValidationError) as error:
            raise UserError(f"{file} is not of 'minisora scale run': choose another --out") from error

    def grows_into(self, now: "LadderFile") -> bool:
        """Whether these results are results of another ladder too, which only has more runs."""
        judged = (self.ladder.prompts, self.ladder.shown_prompt) == (
            now.ladder.prompts,
            now.ladder.shown_prompt,
        )
        return judged and self.config == now.config and set(plan(self.ladder)) <= set(plan(now.ladder))

    def to_yaml(self) -> str:
        """As `read` reads it."""
        tree = {"ladder": self.ladder.model_dump(mode="json"), "config": self.config.model_dump(mode="json")}
        return yaml.safe_dump(tree, sort_keys=False)


def read_rows(file: Path) -> list[RunRow]:
    """The rows of a results file, or none where there is no file yet.

    A last line that was cut off by a power failure is not a row; it is dropped when the next one is appended.

    Raises:
        UserError: a line in the middle is broken, or the file cannot be read.
    """
    try:
        lines = file.read_text().splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is damaged: it is not text; copy it again") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except (ValueError, RecursionError) as error:
            if number == len(lines):
                break
            raise UserError(f"{file}, line {number} is not JSON: mend or remove it") from error
        if not isinstance(rows[-1], dict) or not isinstance(rows[-1].get("name"), str):
            raise UserError(f"{file}, line {number} is no row with a name: mend or remove it")
    return rows


def check_rows(file: Path, rows: list[RunRow]) -> None:
    """Raise UserError, naming the run and the number, unless every row is of a finished run."""
    for row in rows:
        for key in _NUMBERS:
            value = row.get(key)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
                raise UserError(f"{file}: run {row['name']} has {key} = {value!r}: mend or remove its line")


def append_row(file: Path, row: RunRow) -> None:
    """Add a row whole, unless it is there; several processes may append to one file.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_name(f".{file.name}.lock")):
            # Without a last line that was cut off.
            rows = read_rows(file)
            if any(other["name"] == row["name"] for other in rows):
                return
            write_whole(file, "".join(json.dumps(each) + "\n" for each in [*rows, row]))
    except OSError as error:
        raise UserError(f"cannot write {file}: {error.strerror}; free space and run again") from error
