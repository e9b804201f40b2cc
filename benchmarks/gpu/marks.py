"""What the times are held to: the marks that were set before anything was measured."""

from collections.abc import Mapping

# By pass: the most copies of x, and how often the compiled peer's and the eager peer's time.
LARGE = {"forward": (1.5, 1.5, 3.0), "both": (5.0, 2.0, 6.0)}
# The forward pass of all samples at once, where a batch is more than the cache holds.
AT_ONCE = 2.2
SMALL_BATCH = 8
OVERHEAD = 1 / 3


def _line(name: str, value: float, limit: float, *, most: bool) -> str:
    met = value <= limit if most else value >= limit
    sign = "≤" if most else "≥"
    return f"{name} {value:.2f} {sign} {limit:g}: {'met' if met else 'not met'}"


def of_gate(batch: int, both: bool, copies: Mapping[str, float]) -> list[str]:
    """The marks of one row, from medians in copies of x.

    >>> of_gate(8, False, {"ours": 2.0, "timm": 9.0, "timm compiled": 3.0})
    ['compiled 1.50 ≥ 1: met']
    >>> of_gate(64, True, {"ours": 5.5, "timm": 39.0, "timm compiled": 9.0})
    ['copies 5.50 ≤ 5: not met', 'compiled 1.64 ≥ 2: not met', 'eager 7.09 ≥ 6: met']
    """
    ours = copies["ours"]
    compiled, eager = (copies[name] / ours for name in ("timm compiled", "timm"))
    if batch <= SMALL_BATCH:
        return [_line("compiled", compiled, 1.0, most=False)]
    most, over_compiled, over_eager = LARGE["both" if both else "forward"]
    lines = [
        _line("copies", ours, most, most=True),
        _line("compiled", compiled, over_compiled, most=False),
        _line("eager", eager, over_eager, most=False),
    ]
    if "ours at once" in copies and not both:
        lines.append(_line("copies at once", copies["ours at once"], AT_ONCE, most=True))
    return lines


def of_training(steps: Mapping[str, float]) -> str:
    """The mark of a training step: what the gates add, beside what the compiled peer's add.

    >>> of_training({"plain": 10.0, "ours": 11.0, "timm compiled": 14.0})
    "overhead of the compiled peer's 0.25 ≤ 0.333333: met"
    """
    ours, peer = (steps[name] - steps["plain"] for name in ("ours", "timm compiled"))
    return _line("overhead of the compiled peer's", ours / peer, OVERHEAD, most=True)
