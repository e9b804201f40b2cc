"""Int8 files: an exported classifier, quantised statically, and held to its accuracy."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor

from whatwhere.export.errors import ExportError
from whatwhere.export.targets import missing, run_onnx

LOST = 0.02


@dataclass(frozen=True)
class Quantized:
    """An int8 file, and the share of labelled samples that it and its source get right."""

    path: Path
    source_accuracy: float
    accuracy: float
    samples: int

    def __str__(self) -> str:
        return (
            f"{self.path}: onnx in int8, {self.accuracy:.3f} of {self.samples} samples right, "
            f"{self.source_accuracy:.3f} in float32"
        )


def quantize(
    source: Path,
    target: Path,
    calibration: Iterable[Tensor],
    labelled: Iterable[tuple[Tensor, Tensor]],
    *,
    lost: float = LOST,
) -> Quantized:
    """Write a classifier's ONNX file anew with weights and activations in int8.

    Activations are quantised by their range over the calibration batches, weights per output
    channel, in the form of pairs of operators (QDQ) that runtimes fuse. The file is there only if
    its accuracy on the labelled batches is within ``lost`` of its source's.

    Args:
        source: a file of ``export(..., to="onnx")``, whose one output is a score per class.
        target: the file to write; not ``source``.
        calibration: inputs of the network, as it is given them; not the labelled ones.
        labelled: batches of inputs and labels.
        lost: how much accuracy may be lost, 0.02 for two in a hundred samples.

    Raises:
        ExportError: more accuracy is lost, or packages are missing.
        ValueError: there are no batches, or the target is the source.
    """
    absent = missing(["onnx", "onnxruntime"])
    if absent:
        raise ExportError(f'int8 needs {", ".join(absent)}: pip install "whatwhere[export]"')
    inputs, answers = list(calibration), list(labelled)
    if not inputs or not answers:
        raise ValueError(
            "quantize: expected batches to calibrate with and labelled ones, got "
            f"{len(inputs)} and {len(answers)}"
        )
    if target.resolve() == source.resolve():
        raise ValueError(f"quantize: expected target to be another file than {source}")
    with TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as folder:
        part = Path(folder) / target.name
        _write(source, part, inputs)
        before, after = _accuracy(source, answers), _accuracy(part, answers)
        if not before - after <= lost:
            raise ExportError(
                f"expected int8 to lose at most {lost} of accuracy, got {after:.3f} from "
                f"{before:.3f}; calibrate with more samples"
            )
        part.replace(target)
    return Quantized(target, before, after, sum(len(labels) for _, labels in answers))


def _write(source: Path, path: Path, inputs: Sequence[Tensor]) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # untyped
        def __init__(self) -> None:
            self.left: Iterator[Tensor] = iter(inputs)

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self.left, None)
            return None if batch is None else {"x": batch.numpy()}

    prepared = path.with_name("prepared.onnx")
    # Its symbolic shapes stumble over what exporters write; quantising needs none of them.
    quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
    quantize_static(
        str(prepared), str(path), Reader(), quant_format=QuantFormat.QDQ, per_channel=True
    )


def _accuracy(path: Path, labelled: Sequence[tuple[Tensor, Tensor]]) -> float:
    run = run_onnx(path)
    right = sum(int((run(x)[0].argmax(1) == labels).sum()) for x, labels in labelled)
    return right / sum(len(labels) for _, labels in labelled)
