"""What a job comes to before it is made: its steps, and its FLOPs from the passes that its mode takes. Without torch.

A model's facts say what one pass costs at every size on offer (`minisora.studio.job_cost`), and how each mode samples.
Coding what a video is made from is not in it: of a clip it costs less than one step of sampling.
"""

import math
from collections.abc import Mapping
from typing import Any


def plan(facts: Mapping[str, Any], request: Mapping[str, Any]) -> tuple[int, float | None]:
    """Steps and FLOPs of a job; None where nothing is sampled, its size is not on offer or its scheduler not Euler's.

    Args:
        facts: of the model.
        request: mode, size, steps, guidance, scheduler; of restyle also strength and source, of long videos and
            keyframes also what tells their segments.
    """
    mode = request["mode"]
    if mode in ("upload", "trim"):
        return 1, None
    if mode == "keyframes":
        segments = len(request["keyframes"]) - 1
        steps, flops = _clip(facts, request)
        return segments * steps, None if flops is None else segments * flops
    if mode == "long":
        # Each extension samples a clip of the length that the model was trained with.
        later = {**request, "size": [facts["default_size"][0], *request["size"][1:]]}
        first, each = _clip(facts, request), _clip(facts, later)
        flops = None if first[1] is None or each[1] is None else first[1] + len(request["later"]) * each[1]
        return first[0] + len(request["later"]) * each[0], flops
    return _clip(facts, request)


def _clip(facts: Mapping[str, Any], request: Mapping[str, Any]) -> tuple[int, float | None]:
    """Steps and FLOPs of sampling one clip."""
    mode, guidance = request["mode"], float(request["guidance"])
    levels = _levels(facts, request)
    costs = facts["costs"].get("x".join(map(str, request["size"])))
    if costs is None or request["scheduler"] != "euler":
        return len(levels), None
    fixed, _ = costs["plain" if guidance == 1 else "guided"]
    _, pass_ = costs["plain"]
    how = facts["modes"].get(mode, {})
    low, high = how.get("interval", (0.0, 1.0)) if _is_flow_edit(request) else (0.0, 1.0)
    passes = 0
    for level in levels:
        guided = 2 if guidance != 1 and facts["text"] and low <= level <= high else 1
        times = 1
        if _is_flow_edit(request):
            times = 2 * how["noises"]
        elif mode == "inpaint" and level >= how["resample_above"]:
            times = how["resample"]
        passes += guided * times
    return len(levels), float(fixed + passes * pass_)


def _is_flow_edit(request: Mapping[str, Any]) -> bool:
    return request["mode"] == "restyle" and request.get("source") is not None


def _levels(facts: Mapping[str, Any], request: Mapping[str, Any]) -> list[float]:
    """Noise levels of the steps, as `minisora.flow.schedules` sets them."""
    steps, shift = int(request["steps"]), float(facts["sigma_shift"])

    def shifted(level: float, by: float) -> float:
        return by * level / ((1 - level) + by * level)

    if request["mode"] != "restyle":
        return [shifted(1 - step / steps, shift) for step in range(steps)]
    strength = float(request["strength"])
    if _is_flow_edit(request):
        every = [shifted(1 - step / steps, shift) for step in range(steps)]
        return [level for level in every if level <= strength + 1e-9]
    top = shifted(strength, 1 / shift)
    count = max(1, math.ceil(steps * top - 1e-9))
    return [shifted(top * (1 - step / count), shift) for step in range(count)]
