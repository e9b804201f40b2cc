"""``python -m benchmarks.faults``: try the faults, check the studies, write record and page.

Each kind is kept in the record as it is done; with ``--only KIND`` that kind alone is tried anew.
"""

import argparse
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from filelock import FileLock

from benchmarks.faults import changes, damage, disks, kills
from benchmarks.faults.outcome import Outcome
from benchmarks.faults.page import write_page
from benchmarks.faults.study import ROOT, Study, write_bars
from whatwhere.files import read_told, write_json

RECORD = ROOT / "benchmarks" / "results" / "faults.json"
LOCK = Path(tempfile.gettempdir()) / "whatwhere-faults.lock"
KINDS = ("changes", "damage", "disks", "kills", "stops")


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__)
    parser.add_argument("--only", choices=KINDS, action="append", help="by default all")
    parser.add_argument("--kills", type=int, default=36, help="by SIGKILL at random moments")
    parser.add_argument("--seed", type=int, default=8, help="of those moments")
    parser.add_argument("--folder", type=Path, help="for the studies; by default a temporary one")
    asked = parser.parse_args()
    # A shell starts what runs in its background without SIGINT, and so would be the studies.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) if asked.folder is None else asked.folder.resolve()
        folder.mkdir(parents=True, exist_ok=True)
        undisturbed, seconds = _undisturbed(folder)
        chosen = KINDS if asked.only is None else tuple(asked.only)
        for kind in chosen:
            for outcome in _tried(kind, folder, undisturbed, seconds, asked):
                _keep(kind, outcome)
                print(outcome.fault, outcome.times, "problems:", outcome.problems, flush=True)


def _keep(kind: str, outcome: Outcome) -> None:
    with FileLock(LOCK):  # kinds may be tried side by side
        record = {"faults": {}, **read_told(RECORD), "torch": torch.__version__}
        record["faults"][f"{outcome.fault}, {outcome.how}"] = {"kind": kind, **outcome.as_dict()}
        write_json(RECORD, record)
        write_page(record, ROOT / "docs" / "faults.md")


def _undisturbed(folder: Path) -> tuple[Study, float]:
    """A study that nothing disturbs, equal to a second one, and how long it took."""
    study = Study(folder / "undisturbed", write_bars(folder / "bars.npz"))
    note = folder / "undisturbed.json"
    if note.exists():  # of an earlier call with the same --folder
        study.look()
        return study, read_told(note)["seconds"]
    began = time.monotonic()
    first = study.run()
    seconds = time.monotonic() - began
    if first.code != 0:
        raise SystemExit(f"the undisturbed study did not end well:\n{first.text}")
    again = Study(folder / "again", study.data)
    again.run()
    again.compare(study)
    if again.problems:
        raise SystemExit(f"two undisturbed studies differ: {again.problems}")
    write_json(note, {"seconds": seconds})
    return study, seconds


def _tried(
    kind: str, folder: Path, undisturbed: Study, seconds: float, asked: argparse.Namespace
) -> Iterator[Outcome]:
    if kind == "kills":
        return kills.every(folder, undisturbed, seconds, asked.kills, asked.seed)
    if kind == "stops":
        return kills.other_signals(folder, undisturbed, seconds, asked.kills, asked.seed)
    every = {"changes": changes.every, "damage": damage.every, "disks": disks.every}[kind]
    return every(folder, undisturbed)


if __name__ == "__main__":
    main()
