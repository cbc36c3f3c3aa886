"""What a run writes down: one JSON object a line in `metrics.jsonl`, and accelerate trackers by option."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from minisora.errors import UserError
from minisora.files import write_whole


class MetricsLog:
    """Appends records of one stage; resuming drops what was written after the checkpoint.

    Args:
        path: the file; stages of a run share it.
        stage: "vae" or "dit", written into every record.
        accelerator: its trackers get the same numbers; only the main process writes.
    """

    def __init__(self, path: Path, stage: str, accelerator: Accelerator):
        self.path, self.stage, self.accelerator = path, stage, accelerator

    def rewind(self, step: int) -> None:
        """Forget this stage's records after `step`, and a line cut short: no step is twice, all lines are whole."""
        if not self.accelerator.is_main_process or not self.path.is_file():
            return
        kept = [r for r in read_metrics(self.path) if r["stage"] != self.stage or r["step"] <= step]
        write_whole(self.path, "".join(json.dumps(record) + "\n" for record in kept))

    def validation(self, step: int) -> dict[str, float]:
        """What this stage's validation after `step` found; empty if there is no record of one."""
        if not self.path.is_file():
            return {}
        found: dict[str, float] = {}
        for record in read_metrics(self.path):
            if record["stage"] == self.stage and record["step"] == step:
                found |= {k.removeprefix("val_"): v for k, v in record.items() if k.startswith("val_")}
        return found

    def write(self, step: int, **values: float) -> None:
        """Record numbers of a step.

        Raises:
            UserError: the file cannot be written.
        """
        if not self.accelerator.is_main_process:
            return
        record = {"stage": self.stage, "step": step, **{k: float(f"{v:.6g}") for k, v in values.items()}}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a") as file:
                file.write(json.dumps(record) + "\n")
        except OSError as error:
            raise UserError(
                f"cannot write {self.path}: {error.strerror}; free space and run again"
            ) from error
        self.accelerator.log({f"{self.stage}/{k}": v for k, v in values.items()}, step=step)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Records of a metrics file; a line cut short by a crash is left out."""
    records = []
    for line in path.read_text(errors="replace").splitlines():
        with suppress(ValueError):
            records.append(json.loads(line))
    return [each for each in records if isinstance(each, dict) and {"stage", "step"} <= each.keys()]
