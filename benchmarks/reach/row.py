"""One row, in a process of its own: ``python -m benchmarks.reach.row LIBRARY NAME RECORD``."""

import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

import whatwhere
from benchmarks.reach.catalog import entry
from benchmarks.reach.catalog.entry import Arguments, Entry
from benchmarks.reach.network import (
    call,
    channels_last,
    difference,
    evaluate,
    outputs,
    randomise,
    size,
)
from whatwhere.files import write_json

# Compiled and exported code may compute in another order; this is relative to the largest output.
ROUNDING = 1e-4
NOT_WITHOUT = "not without gates"
PASSES = 3
Record = dict[str, Any]


def measure(each: Entry, save: Callable[[Record], None]) -> None:
    """Build a network, attend to it, and note what still works; saved before every step."""
    record: Record = {"status": "failed", "step": "reason"}
    save(record)
    started = time.perf_counter()
    try:
        torch.manual_seed(0)
        model = each.build()
        randomise(model)
        arguments = each.example()
        found, gates = attended(model, arguments)
        record |= found
    except Exception as error:  # the row says what went wrong
        record["reason"] = line(error)
    if record["status"] == "attended":
        for step, check in (
            ("trains", lambda: trains(model, each, gates)),
            ("compiles", lambda: compiles(model, arguments)),
            ("exports", lambda: exports(model, arguments)),
        ):
            record["step"] = step
            save(record)
            try:
                record[step] = check()
            except Exception as error:
                record[step] = line(error)
    record["step"] = None
    save({**record, "seconds": round(time.perf_counter() - started, 1)})


def attended(model: nn.Module, arguments: Arguments) -> tuple[Record, list[str]]:
    """What attend did, whether the outputs stayed, and the names of the new parameters."""
    laid_out = channels_last(model, arguments)
    before_last = None if laid_out is None else evaluate(model, laid_out)
    model.to(memory_format=torch.contiguous_format)
    before = evaluate(model, arguments)
    again = difference(before, evaluate(model, arguments))
    if again != 0:
        raise RuntimeError(f"the network's own output varies by {again:.1e} from call to call")
    parameters = {name for name, _ in model.named_parameters()}
    size_before = sum(parameter.numel() for parameter in model.parameters())
    try:
        report, needs_example = whatwhere.attend(model, "cbam"), False
    except ValueError:
        try:
            report, needs_example = whatwhere.attend(model, "cbam", example=arguments), True
        except ValueError as error:
            return {"status": "refused", "reason": line(error), "parameters": size_before}, []
    after = evaluate(model, arguments)
    off_last = None
    if laid_out is not None and before_last is not None:
        channels_last(model, arguments)
        off_last = difference(before_last, evaluate(model, laid_out))
        model.to(memory_format=torch.contiguous_format)
    record = {
        "status": "attended",
        "where": report.sites[0].kind,
        "needs_example": needs_example,
        "sites": len(report.sites),
        "skipped": len(report.skipped),
        "parameters": size_before,
        "added": report.parameters_added,
        "difference": difference(before, after),
        "difference_channels_last": off_last,
    }
    return record, [name for name, _ in model.named_parameters() if name not in parameters]


def trains(model: nn.Module, each: Entry, gates: list[str]) -> str:
    """Backward passes in training mode: every parameter of a gate has a finite gradient.

    Every gate has one that isn't zero, too, in one of a few passes: where paths are dropped at
    random, a gate may be on none of them in the first.
    """
    idle = {_gate(name) for name in gates}
    for seed in range(PASSES):
        torch.manual_seed(seed)
        arguments = each.example() if each.training is None else each.training()
        made = outputs(call(model.train(), arguments, seed=seed))
        sum(tensor.square().sum() for tensor in made if tensor.requires_grad).backward()
        parameters = dict(model.named_parameters())
        for name in gates:
            gradient = parameters[name].grad
            if gradient is None:
                return _without_gradient(model, name)
            if not bool(gradient.isfinite().all()):
                return f"the gradient of {name} is not finite"
            if bool((gradient != 0).any()):
                idle.discard(_gate(name))
        model.zero_grad()
        if not idle:
            return "yes"
    return f"{len(idle)} gates have zero gradients, {min(idle)} first"


def _without_gradient(model: nn.Module, parameter: str) -> str:
    """Where the network doesn't differentiate through a module, a gate there has no gradient."""
    site = model.get_submodule(_gate(parameter))
    own = [value for name, value in site.named_parameters() if ".attention." not in f".{name}"]
    if any(value.requires_grad for value in own) and all(value.grad is None for value in own):
        return f"{NOT_WITHOUT}: no gradient reaches {_gate(parameter)}"
    return f"no gradient for {parameter}"


def _gate(parameter: str) -> str:
    return parameter.rpartition(".attention")[0]


def compiles(model: nn.Module, arguments: Arguments) -> str:
    """Whether it compiles without a break, and computes the same then."""

    def compiled(network: nn.Module) -> Callable[..., Any]:
        torch._dynamo.reset()
        return torch.compile(network, fullgraph=True, backend="aot_eager")

    return _same_after(compiled, model, arguments)


def exports(model: nn.Module, arguments: Arguments) -> str:
    """Whether it exports, and the exported program computes the same."""

    def exported(network: nn.Module) -> Callable[..., Any]:
        torch._dynamo.reset()
        positional = () if isinstance(arguments, dict) else arguments
        keywords = arguments if isinstance(arguments, dict) else {}
        return torch.export.export(network, positional, keywords).module()

    return _same_after(exported, model, arguments)


def _same_after(
    transform: Callable[[nn.Module], Callable[..., Any]], model: nn.Module, arguments: Arguments
) -> str:
    """Whether the transformed network computes the same; if not, whether the plain one does."""
    failure = _failure(transform, model, arguments)
    if failure is None:
        return "yes"
    gates = whatwhere.detach(model)
    without = _failure(transform, model, arguments)
    whatwhere.surgery.reattach(model, gates)
    return failure if without is None else f"{NOT_WITHOUT}: {without}"


def _failure(
    transform: Callable[[nn.Module], Callable[..., Any]], model: nn.Module, arguments: Arguments
) -> str | None:
    try:
        expected = evaluate(model, arguments)
        with torch.no_grad():
            transformed: Any = transform(model)
            found = outputs(call(transformed, arguments))
    except Exception as error:  # whatever compilers raise
        return line(error)
    off = difference(expected, found)
    return None if off <= ROUNDING * size(expected) else f"the output differs by {off:.1e}"


def line(error: BaseException) -> str:
    """An error in one line; of a refusal to attend what it saw, not what to do then."""
    text = " ".join(str(error).split()).partition(" Name the modules")[0]
    if "found none. Looked for" in text:
        _, found, used = text.partition("could not use ")
        return f"no site; could not use {used}"[:300] if found else "no site"
    return f"{type(error).__name__}: {text}"[:300]


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    library, name, path = sys.argv[1:]
    measure(entry(library, name), lambda record: write_json(Path(path), record))
