"""OUT/ladder.yaml: which ladder a folder of results belongs to, and what all its runs shared."""

from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import ValidationError

from minisora.config import Config, read_yaml
from minisora.errors import UserError
from minisora.scaling.ladder import LadderConfig, plan, shared_config


@dataclass(frozen=True)
class Kept:
    """What makes two rows of results comparable: OUT/ladder.yaml."""

    ladder: LadderConfig  # but for its guess of time
    config: Config  # that all runs share

    @classmethod
    def of(cls, ladder: LadderConfig) -> "Kept":
        """As the ladder is now."""
        speed = LadderConfig.model_fields["flops_per_second"].default
        return cls(ladder.model_copy(update={"flops_per_second": speed}), shared_config(ladder))

    @classmethod
    def read(cls, out: Path) -> "Kept":
        """Of the results in a folder.

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

    def grows_into(self, now: "Kept") -> bool:
        """Whether these results are results of another ladder too, which only has more runs."""
        judged = (self.ladder.prompts, self.ladder.shown_prompt) == (
            now.ladder.prompts,
            now.ladder.shown_prompt,
        )
        return judged and self.config == now.config and set(plan(self.ladder)) <= set(plan(now.ladder))

    def to_yaml(self) -> str:
        """As `read` reads it."""
        tree = {
            "ladder": self.ladder.model_dump(mode="json"),
            "config": self.config.model_dump(mode="json"),
        }
        return yaml.safe_dump(tree, sort_keys=False)
