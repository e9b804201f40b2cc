"""The share of timm's conv networks on which ``attend`` succeeds; a shard of the names at a time.

``python -m benchmarks.reach.share SHARD LINES``. Networks are built and looked at on the meta
device: no arithmetic, no memory. Each name gets a line before it is tried and one after, so a
process that dies is not sent into the same network again.
"""

import json
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

import whatwhere
from benchmarks.reach.row import line
from benchmarks.reach.run import at_once, stamp, start

SHARDS = 16
SECONDS = 120  # for one name
# So many convolutions that are wider than 1 and don't sample make a conv or hybrid network.
# Stems, patch embeddings and the sampling between stages of transformers don't count that way.
CONVOLUTIONS = 3
Fact = dict[str, Any]


def timm_facts(folder: Path, *, jobs: int, fresh: bool) -> list[Fact]:
    """What became of each of timm's names; those known from the same code are not tried again."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = stamp("timm")

    def shard(number: int) -> list[Fact]:
        path = folder / f"timm-share-{number}.jsonl"
        if fresh or not path.exists() or json.loads(path.read_text().partition("\n")[0]) != wanted:
            path.write_text(json.dumps(wanted) + "\n")
        while len(known := read_facts(path)) < len(_names(number)):
            start("share", str(number), str(path), limit=None)
            if len(read_facts(path)) == len(known):
                raise RuntimeError(f"shard {number} of timm's names came no further")
        return list(known.values())

    facts = [fact for each in at_once(shard, range(SHARDS), jobs) for fact in each]
    return sorted(facts, key=lambda fact: fact["name"])


def read_facts(path: Path) -> dict[str, Fact]:
    """The last line about each name."""
    lines = path.read_text().splitlines()[1:]
    return {fact["name"]: fact for fact in map(json.loads, lines)}


def _names(shard: int) -> list[str]:
    return sorted(timm.list_models())[shard::SHARDS]


def look_at(name: str, file: str) -> Fact:
    """Build one network and attend to it."""
    started = time.perf_counter()
    fact: Fact = {"name": name, "file": file, "convolutional": None, "attended": False}
    try:
        with torch.device("meta"):
            model = timm.create_model(name)
        fact["parameters"] = sum(parameter.numel() for parameter in model.parameters())
        wide = [
            module
            for module in model.modules()
            if isinstance(module, nn.Conv2d)
            and max(module.kernel_size) > 1
            and max(module.stride) == 1
        ]
        fact["convolutional"] = len(wide) >= CONVOLUTIONS
        report = whatwhere.attend(model, "cbam")
        fact |= {"attended": True, "where": report.sites[0].kind, "sites": len(report.sites)}
    except Exception as error:  # the fact says what went wrong
        fact["reason"] = line(error)
    return {**fact, "seconds": round(time.perf_counter() - started, 2)}


def _stop(*_: object) -> None:
    raise TimeoutError(f"not done after {SECONDS} s")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    shard_number, path_given = int(sys.argv[1]), Path(sys.argv[2])
    files = {name: file for file in timm.list_modules() for name in timm.list_models(module=file)}
    signal.signal(signal.SIGALRM, _stop)
    done = read_facts(path_given)
    with path_given.open("a") as lines:
        for each in _names(shard_number):
            if each not in done:
                died = {"name": each, "file": files[each], "convolutional": None}
                died |= {"attended": False, "reason": "the process died", "seconds": 0}
                lines.write(json.dumps(died) + "\n")
                lines.flush()
                signal.alarm(SECONDS)
                fact = look_at(each, files[each])
                signal.alarm(0)
                lines.write(json.dumps(fact) + "\n")
                lines.flush()
