"""What a study is asked to do, in JSON-able values, and the variants it compares."""

import ast
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, get_args

import torch

from whatwhere.checks import check_choice, check_positive
from whatwhere.gates import Start, gate_options, names
from whatwhere.study.data import DataSettings
from whatwhere.study.devices import Devices, checkpoint_interval

Control = Literal["parameters", "latency", "none"]
Precision = Literal["auto", "32-true", "bf16-mixed", "16-mixed"]
Role = Literal["baseline", "attention", "control"]

BASELINE = "none"
CONTROL = "wider"


class StudyError(ValueError):
    """A study that can't be run as asked."""


@dataclass(frozen=True)
class Variant:
    """One network of the comparison: the backbone plain, with a gate, or widened."""

    name: str
    role: Role
    gate: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    width: float = 1.0

    @property
    def slug(self) -> str:
        """The name as part of a file name; a control of another width is another network."""
        name = self.name if self.role != "control" else f"{self.name}-{self.width:.5f}"
        return re.sub(r"[^A-Za-z0-9=.+-]+", "_", name)


@dataclass(frozen=True)
class StudySettings:
    """All that decides a study's numbers. Seeds and variants may grow; the rest stays.

    Args:
        data: what to train on.
        backbone: as in ``Backbone``.
        variants: "none" for the plain backbone, else a gate's name with options:
            "cbam:kernel_size=3:order=spatial-channel".
        control: what the plain network is widened to match, or no capacity control.
        seeds: how many; a seed decides initial weights, data order and augmentation.
        epochs, batch_size, learning_rate, weight_decay: of AdamW with a one-cycle cosine schedule.
        where: as in ``whatwhere.attend``: "auto", a kind of place, or names of modules separated
            by commas.
        start: how gates start, "identity" or "paper".
        precision: Lightning's; "auto" is bf16-mixed where the GPU has it, else 32-true.
        pretrained: start from the library's pretrained weights.
        deterministic: only operations that give the same bits every time; others are refused.
        fast: whether this is a first look rather than a study.
        devices: of one training.
        checkpoint_every: how often a training is written down within an epoch, in steps ("200")
            or minutes ("5m"); at the end of an epoch it always is.
    """

    data: DataSettings
    backbone: str = "small"
    variants: tuple[str, ...] = (BASELINE, "se", "cbam")
    control: Control = "parameters"
    seeds: int = 3
    epochs: int = 6
    batch_size: int = 64
    learning_rate: float = 3e-3
    weight_decay: float = 0.05
    where: str = "auto"
    start: Start = "identity"
    precision: Precision = "auto"
    pretrained: bool = False
    deterministic: bool = False
    fast: bool = False
    devices: Devices = field(default_factory=Devices)
    checkpoint_every: str = "5m"

    def __post_init__(self) -> None:
        for name in ("seeds", "epochs", "batch_size"):
            check_positive("study", name, getattr(self, name))
        check_choice("study", "control", self.control, get_args(Control))
        check_choice("study", "start", self.start, get_args(Start))
        check_choice("study", "precision", self.precision, get_args(Precision))
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise StudyError(f"expected a finite learning rate above 0, got {self.learning_rate}")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise StudyError(f"expected a finite weight decay >= 0, got {self.weight_decay}")
        if self.precision == "16-mixed" and not torch.cuda.is_available():
            raise StudyError("expected a GPU with precision 16-mixed, got none; bf16-mixed goes")
        if self.precision == "16-mixed" and self.devices.sharded:
            raise StudyError("expected bf16-mixed or 32-true with --strategy fsdp, got 16-mixed")
        checkpoint_interval(self.checkpoint_every)
        parse_variants(self.variants)

    def used_precision(self) -> str:
        """Lightning's name of the precision that trials have on this machine."""
        if self.precision != "auto":
            return self.precision
        bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
        return "bf16-mixed" if bf16 else "32-true"

    def fixed(self) -> dict[str, Any]:
        """What must not change between two runs into the same folder."""
        free = ("seeds", "variants", "checkpoint_every")
        return {k: v for k, v in asdict(self).items() if k not in free}


def changes(known: dict[str, Any], asked: dict[str, Any]) -> list[str]:
    """How the settings that a folder was made with differ from those asked for, in words.

    What an earlier version could not be asked was as it is now by default.

    >>> changes({"epochs": 25, "seed": 1}, {"epochs": 9, "seed": 1})
    ['epochs was 25 and is now 9']
    """
    before = {**StudySettings(data=DataSettings()).fixed(), **known}
    return [
        f"{name} was {before.get(name)!r} and is now {asked.get(name)!r}"
        for name in sorted(known.keys() | asked.keys())
        if before.get(name) != asked.get(name)
    ]


def default_variants(source: str) -> tuple[str, ...]:
    """What to compare on a source of data if nothing else is asked: on clips, *when* as well."""
    if source == "clips":
        return (BASELINE, "temporal", "cbam:kernel_size=1x7x7:order=channel-spatial-temporal")
    return (BASELINE, "se", "cbam")


def parse_variants(texts: Sequence[str]) -> tuple[Variant, ...]:
    """The baseline first, then the gates asked for.

    Raises:
        StudyError: an unknown gate or option, or the same variant twice.

    >>> [variant.name for variant in parse_variants(["cbam:kernel_size=3", "none"])]
    ['none', 'cbam:kernel_size=3']
    """
    if len(set(texts)) != len(texts):
        raise StudyError(f"expected different variants, got {', '.join(texts)}")
    baseline = Variant(BASELINE, "baseline")
    return (baseline, *(_parse_variant(text) for text in texts if text != BASELINE))


def widened(width: float) -> Variant:
    """The capacity control."""
    return replace(Variant(CONTROL, "control"), width=width)


def _parse_variant(text: str) -> Variant:
    gate, *assignments = text.split(":")
    if gate not in names():
        raise StudyError(
            f"expected the variant {BASELINE} or one of the gates {', '.join(names())}, "
            f"got {gate!r}"
        )
    options = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals or key not in gate_options(gate):
            raise StudyError(
                f"expected the options of {gate}, {', '.join(gate_options(gate))}, as "
                f"{gate}:OPTION=VALUE, got {assignment!r} in {text!r}"
            )
        options[key] = _parse_value(value)
    return Variant(text, "attention", gate, options)


def _parse_value(text: str) -> Any:
    if re.fullmatch(r"\d+(x\d+)+", text):  # 1x7x7: one size per axis
        return tuple(int(size) for size in text.split("x"))
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
