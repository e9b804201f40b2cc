"""Numbers and names as the page says them, in Markdown."""

import re
from collections.abc import Sequence

from torch import Tensor


def plainly(text: str) -> str:
    """Text of anyone's, as a class's or a file's name, with nothing in it that Markdown acts on.

    >>> print(plainly("a_b*c <i>"))
    a\\_b\\*c \\<i\\>
    """
    return re.sub(r"([\\`*_{}\[\]<>()#+\-.!|~$&:])", r"\\\1", " ".join(text.split()))


def in_words(classes: Sequence[str], trained: Tensor, now: Tensor | None = None) -> str:
    """What a network says of an input, and what becomes of it with gates off.

    >>> from torch import tensor
    >>> print(in_words(["cat", "dog"], tensor([0.9, 0.1])))
    **cat**, 90.00%
    >>> print(in_words(["cat", "dog"], tensor([0.9, 0.1]), tensor([0.25, 0.75])))
    **cat**, 90.00% → 25.00% (−65.00 points): now it says **dog**, 75.00%
    """
    first = int(trained.argmax())
    words = f"**{plainly(classes[first])}**, {trained[first]:.2%}"
    if now is None:
        return words
    change = 100 * (now[first] - trained[first]).item()
    words += f" → {now[first]:.2%} ({change:+.2f} points)".replace("-", "−")
    second = int(now.argmax())
    if second == first:
        return f"{words}: it says the same"
    return f"{words}: now it says **{plainly(classes[second])}**, {now[second]:.2%}"


def as_bars(classes: Sequence[str], probabilities: Tensor) -> dict[str, float]:
    """What Gradio draws as bars."""
    return dict(zip(classes, probabilities.tolist(), strict=True))
