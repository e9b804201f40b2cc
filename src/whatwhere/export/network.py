"""Export a network, and compare the file with it at sizes that the exporter never saw."""

import copy
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.utils._pytree import tree_leaves

from whatwhere.checks import check_choice, check_feature_map
from whatwhere.export import targets
from whatwhere.export.errors import ExportError
from whatwhere.export.sizes import BATCH, alternatives, first_input, noise, other_shapes, runs
from whatwhere.ops import implementation

Target = Literal["onnx", "torch-export", "aoti"]
Dynamic = Literal["all", "batch", "none"]
TOLERANCE = 1e-5  # of the largest output
FORMATS: dict[Target, tuple[str, Any, Any]] = {
    "onnx": (".onnx", targets.write_onnx, targets.run_onnx),
    "torch-export": (".pt2", targets.write_program, targets.run_program),
    "aoti": (".pt2", targets.write_compiled, targets.run_compiled),
}
TORCHSCRIPT = (
    "export: torchscript is refused: torch.jit.script can't compile the gates' Python, "
    "torch.jit.trace keeps what Python decided at the traced size without a word, and both "
    'are deprecated in torch; to="torch-export" is their successor'
)


@dataclass(frozen=True)
class Exported:
    """A file, and how far it was from the live network.

    Args:
        path: of the file.
        to: its format.
        traced: the shape it was exported at.
        dynamic: the axes of the input that may have other sizes.
        differences: by shape of the input, the largest difference of any output, relative to the
            largest output there.
        notes: why axes are fixed.
    """

    path: Path
    to: Target
    traced: tuple[int, ...]
    dynamic: tuple[int, ...]
    differences: dict[tuple[int, ...], float]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        names = targets.axis_names(len(self.traced) - 2)
        free = ", ".join(names[axis] for axis in self.dynamic)
        lines = [f"{self.path}: {self.to}, any {free}" if free else f"{self.path}: {self.to}"]
        lines += [
            f"  {'x'.join(map(str, shape))}{' (traced)' if shape == self.traced else ''}: "
            f"differs from the live network by {difference:.1e} of its largest output"
            for shape, difference in self.differences.items()
        ]
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])


def export(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    to: Target,
    example: Tensor | None = None,
    dynamic: Dynamic = "all",
) -> Exported:
    """Write a network as a file that runs without this library, and check the file.

    The file is that of the network in eval mode, on the CPU, in standard operators. It is traced at
    a size larger than the example's where the network takes one, run on noise of that shape, of the
    example's and of up to three others, other batches among them, and compared with the network.
    The file is there only if all agree. The network is left as it is.

    Args:
        model: of one float32 tensor (N, C, *S), with or without gates; its outputs any tensors.
        path: of the file, ending in .onnx for "onnx" and in .pt2 for the others.
        to: "onnx", checked in onnxruntime; "torch-export", for ``torch.export.load``; "aoti",
            compiled for this machine, for ``torch._inductor.aoti_load_package``.
        example: a tensor of a shape the network takes; without it, shapes are tried out.
        dynamic: "all" leaves the batch and every position axis free that the network leaves free;
            "batch" and "none" fix the others, for what can't be exported otherwise.

    Raises:
        ExportError: the exporter can't, or the file differs from the network by more than 1e-5 of
            the largest output, or packages are missing. Nothing is written then.
        ValueError: an argument is not what was expected.

    >>> import tempfile, whatwhere
    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), whatwhere.CBAM(8))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     done = export(
    ...         model, f"{folder}/net.pt2", to="torch-export", example=torch.zeros(1, 3, 16, 16)
    ...     )
    >>> done.dynamic, len(done.differences), max(done.differences.values()) <= 1e-5
    ((0, 2, 3), 5, True)
    """
    path = Path(path)
    _check(model, path, to, dynamic)
    model = copy.deepcopy(model).cpu().eval()
    with torch.no_grad():
        x = _traced_input(model, example)
        taken = alternatives(model, x.shape) if dynamic != "none" else {}
        if dynamic == "batch":
            taken = {axis: sizes for axis, sizes in taken.items() if axis == BATCH}
        others = other_shapes(model, x.shape, taken)
        traced = _largest(model, x, others)
        program, frozen = _program(model, traced, taken)
        notes = _notes(x, taken, frozen, dynamic)
        if frozen:  # at the traced sizes: they are to be the example's
            taken = {axis: sizes for axis, sizes in taken.items() if axis not in frozen}
            others = other_shapes(model, x.shape, taken)
            traced = x
            program, _ = _program(model, traced, taken)
        shapes = list(dict.fromkeys([tuple(traced.shape), tuple(x.shape), *others]))
        with TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            part = Path(folder) / path.name
            _write(program, traced, tuple(taken), to, part)
            differences = _compare(model, part, to, shapes)
            part.replace(path)
    return Exported(path, to, tuple(traced.shape), tuple(taken), differences, notes)


def _check(model: nn.Module, path: Path, to: str, dynamic: str) -> None:
    if to == "torchscript":
        raise ExportError(TORCHSCRIPT)
    check_choice("export", "to", to, get_args(Target))
    check_choice("export", "dynamic", dynamic, get_args(Dynamic))
    suffix = FORMATS[to][0]  # type: ignore[index]  # checked
    if path.suffix != suffix:
        raise ValueError(f'export: expected a path ending in {suffix} for to="{to}", got {path}')
    if not path.parent.is_dir():
        raise ValueError(f"export: expected the folder of {path} to exist")
    dtypes = {each.dtype for each in model.parameters() if each.is_floating_point()}
    if dtypes - {torch.float32}:
        found = ", ".join(sorted(map(str, dtypes)))
        raise ValueError(f"export: expected weights in float32, got {found}; call model.float()")
    absent = targets.missing(["onnx", "onnxscript", "onnxruntime"]) if to == "onnx" else []
    if absent:
        raise ExportError(f'to="onnx" needs {", ".join(absent)}: pip install "whatwhere[export]"')


def _traced_input(model: nn.Module, example: Tensor | None) -> Tensor:
    if example is None:
        found = first_input(model)
    else:
        check_feature_map("export", example, (3, 4, 5))
        found = noise(example.shape)
        model(found)  # what the network says to its example is the best word there is
    # A batch of one is a constant to torch.export.
    two = noise((2, *found.shape[1:]))
    return two if len(found) == 1 and runs(model, two) else found


def _largest(model: nn.Module, x: Tensor, others: Sequence[tuple[int, ...]]) -> Tensor:
    """What to trace on: x, or noise of the largest positions known to run.

    An axis that has shrunk to one position inside a network is a constant to torch.export; and on
    equal sides what depends on one can't be told from what depends on the other.
    """
    shapes = [(len(x), *other[1:]) for other in others]
    largest = max(shapes, key=math.prod, default=tuple(x.shape))
    if math.prod(largest) > x.numel() and runs(model, noise(largest)):
        return noise(largest)
    return x


def _program(
    model: nn.Module, x: Tensor, taken: dict[int, list[int]]
) -> tuple[ExportedProgram, tuple[int, ...]]:
    """The program, and the axes that tracing fixed although the network takes other sizes."""
    try:
        with implementation("reference"):
            program = torch.export.export(
                model, (x,), dynamic_shapes=(dict.fromkeys(taken, Dim.AUTO),)
            )
    except Exception as error:  # of dozens of kinds
        raise ExportError(f"torch.export can't: {_first_line(error)}") from error
    (name,) = program.graph_signature.user_inputs
    given = next(node for node in program.graph.nodes if node.name == name).meta["val"]
    return program, tuple(axis for axis in taken if _is_constant(given.shape[axis]))


def _is_constant(size: Any) -> bool:
    # A symbol that a guard has made equal to a number is one still, and its expression a number.
    return isinstance(size, int) or bool(size.node.expr.is_number)


def _notes(
    x: Tensor, taken: dict[int, list[int]], frozen: Sequence[int], dynamic: str
) -> tuple[str, ...]:
    names = targets.axis_names(x.ndim - 2)
    notes = []
    for axis, name in names.items():
        asked = dynamic == "all" or (dynamic == "batch" and axis == BATCH)
        if axis in frozen:
            notes.append(f"{name} is fixed at {x.shape[axis]}: the network's code reads it")
        elif not asked:
            notes.append(f'{name} is fixed at {x.shape[axis]}: asked for by dynamic="{dynamic}"')
        elif axis not in taken:
            notes.append(f"{name} is fixed at {x.shape[axis]}: the network took no other size")
    return tuple(notes)


def _write(
    program: ExportedProgram, x: Tensor, dynamic: Sequence[int], to: Target, path: Path
) -> None:
    try:
        FORMATS[to][1](program, x, dynamic, path)
    except Exception as error:  # of dozens of kinds
        raise ExportError(f"{to} can't be written: {_first_line(error)}") from error


def _compare(
    model: nn.Module, path: Path, to: Target, shapes: Sequence[tuple[int, ...]]
) -> dict[tuple[int, ...], float]:
    run = FORMATS[to][2](path)
    differences = {}
    for shape in shapes:
        x = noise(shape)
        wanted = [leaf for leaf in tree_leaves(model(x)) if isinstance(leaf, Tensor)]
        try:
            found = run(x)
        except Exception as error:  # of dozens of kinds
            raise ExportError(
                f"the {to} file does not run on {shape}, which the network takes: "
                f'{_first_line(error)}; dynamic="batch" fixes the positions'
            ) from error
        differences[shape] = _difference(wanted, found)
        if not differences[shape] <= TOLERANCE:  # NaN too
            raise ExportError(
                f"the {to} file differs from the network by {differences[shape]:.1e} of its "
                f"largest output on {shape}, where at most {TOLERANCE} was expected; "
                'dynamic="batch" fixes the positions'
            )
    return differences


def _difference(wanted: Sequence[Tensor], found: Sequence[Tensor]) -> float:
    if [each.shape for each in wanted] != [each.shape for each in found]:
        return float("inf")
    largest = 0.0
    for right, other in zip(wanted, found, strict=True):
        scale = right.abs().max().clamp_min(torch.finfo(torch.float32).tiny)
        worst = float((other - right).abs().max() / scale)
        if not worst <= largest:  # NaN too
            largest = worst
    return largest


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}"
