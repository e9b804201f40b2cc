"""Which CBAMs a state_dict holds: found by the names and shapes of their weights."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

from whatwhere.checkpoints.conversion.dialects import (
    DIALECTS,
    ULTRALYTICS_KEY,
    ULTRALYTICS_REASON,
    Spelling,
)
from whatwhere.checkpoints.conversion.weights import MISSING, fault, names
from whatwhere.gates import Dialect


@dataclass(frozen=True)
class Found:
    """One CBAM of a state_dict.

    Args:
        prefix: of its keys, without the last dot; "" if the state_dict is of it alone.
        dialect: whose function it is.
        spelling: of its keys.
        tensors: by their names relative to it.
    """

    prefix: str
    dialect: Dialect
    spelling: Spelling
    tensors: dict[str, Tensor]

    @property
    def keys(self) -> list[str]:
        """Its keys in the state_dict."""
        return [joined(self.prefix, key) for key in self.tensors]


def joined(*parts: str) -> str:
    """Names joined by dots; empty ones are left out."""
    return ".".join(part for part in parts if part)


def prefixes(state_dict: Mapping[str, Tensor], key: str) -> Iterator[str]:
    """What comes before a key wherever it ends the name of a tensor."""
    for name in state_dict:
        if name == key or name.endswith(f".{key}"):
            yield name.removesuffix(key).removesuffix(".")


def below(state_dict: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors under a prefix, by their names relative to it."""
    start = f"{prefix}." if prefix else ""
    return {
        name.removeprefix(start): tensor
        for name, tensor in state_dict.items()
        if name.startswith(start)
    }


def find(state_dict: Mapping[str, Tensor], source: Dialect | None) -> list[Found]:
    """Every CBAM of other code bases, all of one dialect.

    Args:
        state_dict: of a module or a network.
        source: the dialect that is expected; None for whichever is there.

    Raises:
        ValueError: there is none, one is not whole, or they are of several dialects.
    """
    _refuse_ultralytics(state_dict)
    found: list[Found] = []
    for at, candidates in _modules(state_dict).items():
        whole = [each for each in candidates if isinstance(each, Found)]
        if source is not None and len(whole) > 1:
            whole = [each for each in whole if each.dialect == source]
        if not whole:
            wrong = min(map(str, candidates), key=lambda reason: reason.startswith(MISSING))
            raise ValueError(f"convert: expected a whole CBAM at {at}, but {wrong}")
        found += whole
    dialects = sorted({each.dialect for each in found})
    if not found:
        raise ValueError(
            "convert: expected the keys of a CBAM of one of the dialects "
            f"{', '.join(DIALECTS)} or of whatwhere.CBAM, found none among {len(state_dict)} keys"
            f" such as {', '.join(list(state_dict)[:3])}"
        )
    if source is not None and dialects != [source]:
        raise ValueError(
            f"convert: expected CBAMs of dialect {source!r}, but the keys under "
            f"{found[0].prefix!r} are those of {' and '.join(map(repr, dialects))}"
        )
    if len(dialects) > 1:
        raise ValueError(
            f"convert: the keys fit the dialects {' and '.join(map(repr, dialects))}; say which "
            "with source="
        )
    return found


def _modules(state_dict: Mapping[str, Tensor]) -> dict[str, list[Found | str]]:
    """The CBAMs that each first layer may belong to, or what is wrong with them."""
    modules: dict[str, list[Found | str]] = {}
    for name, dialect in DIALECTS.items():
        for spelling in dialect.spellings:
            for prefix in prefixes(state_dict, f"{spelling.reduce}.weight"):
                at = joined(prefix, spelling.reduce.split(".")[0])
                each = _read(state_dict, prefix, name, spelling)
                modules.setdefault(at, []).append(each)
    for at, candidates in modules.items():
        whole: list[Found | str] = [each for each in candidates if isinstance(each, Found)]
        modules[at] = whole if whole else candidates
    return modules


def _read(
    state_dict: Mapping[str, Tensor], prefix: str, dialect: Dialect, spelling: Spelling
) -> Found | str:
    tensors = below(state_dict, prefix)
    weight = tensors[f"{spelling.reduce}.weight"]
    there = {
        "linear": weight.ndim == 2,
        "network_bias": f"{spelling.reduce}.bias" in tensors,
        "conv_bias": f"{spelling.conv}.bias" in tensors,
    }
    spelling = spelling.having({flag: there[flag] for flag in DIALECTS[dialect].varies})
    wrong = fault(tensors, spelling)
    if wrong is not None:
        return f"{wrong} (as {dialect!r})"
    own = {key: tensors[key] for key in names(spelling) if key in tensors}
    return Found(prefix, dialect, spelling, own)


def _refuse_ultralytics(state_dict: Mapping[str, Tensor]) -> None:
    for prefix in prefixes(state_dict, ULTRALYTICS_KEY):
        if joined(prefix, "spatial_attention.cv1.weight") in state_dict:
            raise ValueError(f"convert: can't convert {prefix or 'it'}: {ULTRALYTICS_REASON}")
