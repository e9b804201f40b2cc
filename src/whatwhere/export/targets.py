"""The formats: how a program is written in each, and how the file is run again.

``onnx`` needs the packages of whatwhere[export]; the other two are torch's own.
"""

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.utils._pytree import tree_leaves

from whatwhere.export.pooling import decomposed

Run = Callable[[Tensor], Sequence[Tensor]]
POSITIONS = {1: ("length",), 2: ("height", "width"), 3: ("frames", "height", "width")}


def missing(packages: Sequence[str]) -> list[str]:
    """Those of the packages that can't be imported."""
    absent = []
    for name in packages:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            absent.append(name)
    return absent


def axis_names(ndim: int) -> dict[int, str]:
    """What the axes of an input with so many position axes are called in a file.

    >>> axis_names(2)
    {0: 'batch', 2: 'height', 3: 'width'}
    """
    return {0: "batch", **{2 + index: name for index, name in enumerate(POSITIONS[ndim])}}


def write_onnx(program: ExportedProgram, x: Tensor, dynamic: Sequence[int], path: Path) -> None:
    """One file of ONNX."""
    names = axis_names(x.ndim - 2)
    written = torch.onnx.export(
        decomposed(program),
        (),
        dynamo=True,
        verbose=False,
        input_names=["x"],
        dynamic_shapes=({axis: names[axis] for axis in dynamic},),
    )
    assert written is not None
    written.save(str(path))


def run_onnx(path: Path) -> Run:
    """An ONNX file in onnxruntime, on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()

    def run(x: Tensor) -> list[Tensor]:
        return [torch.from_numpy(each) for each in session.run(None, {given.name: x.numpy()})]

    return run


def write_program(
    program: ExportedProgram, _x: Tensor, _dynamic: Sequence[int], path: Path
) -> None:
    """A program of torch.export, for ``torch.export.load``."""
    torch.export.save(program, str(path))


def run_program(path: Path) -> Run:
    """A file of ``torch.export.save``."""
    module = torch.export.load(str(path)).module()
    return lambda x: _tensors(module(x))


def write_compiled(
    program: ExportedProgram, _x: Tensor, _dynamic: Sequence[int], path: Path
) -> None:
    """A package that AOTInductor compiled for this machine's processor."""
    torch._inductor.aoti_compile_and_package(program, package_path=str(path))


def run_compiled(path: Path) -> Run:
    """A package of AOTInductor."""
    module = torch._inductor.aoti_load_package(str(path))
    return lambda x: _tensors(module(x))


def _tensors(output: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
