"""``python -m benchmarks.faults.bits``: are the weights of two trainings the same bits?

Trains each network as it is, with ``--deterministic``, and with ``--deterministic`` stopped between
two epochs and resumed, and compares all weights and the test's numbers.
"""

import tempfile
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from filelock import FileLock
from safetensors.torch import load_file

from benchmarks.faults.page import write_page
from benchmarks.faults.study import ROOT, write_bars
from whatwhere.files import read_told, write_json
from whatwhere.study.data import DataSettings
from whatwhere.study.settings import StudySettings, parse_variants
from whatwhere.study.training import Classifier
from whatwhere.study.trial import Trial, run_trial

RECORD = ROOT / "benchmarks" / "results" / "faults.json"
LOCK = Path(tempfile.gettempdir()) / "whatwhere-faults.lock"
EPOCHS = 3
IMAGES = ("none", "se", "cbam", "ceca", "fca", "bam", "triplet", "coordinate", "lska")
CASES = (
    *(("images", "small", variant) for variant in IMAGES),
    ("images", "timm/resnet10t", "cbam"),
    ("images", "torchvision/mobilenet_v3_small", "cbam"),
    *(("clips", "small", variant) for variant in ("none", "cbam", "temporal", "tea", "tam")),
    *(("sequences", "small", variant) for variant in ("none", "channel", "temporal", "eca")),
)


def main() -> None:
    """Train the cases that the record does not have, and put what came out into it and the page."""
    with tempfile.TemporaryDirectory() as folder:
        sources = _sources(Path(folder))
        for data, backbone, variant in CASES:
            key = {"data": data, "backbone": backbone, "variant": variant}
            if any(key.items() <= row.items() for row in read_told(RECORD).get("bits", [])):
                continue
            run = Path(folder) / f"{data}-{backbone.replace('/', '-')}-{variant}"
            row = key | _row(run, sources[data], backbone, variant)
            print(row, flush=True)
            with FileLock(LOCK):
                record = read_told(RECORD)
                record["bits"] = [*record.get("bits", []), row]
                write_json(RECORD, record)
                write_page(record, ROOT / "docs" / "faults.md")


def _sources(folder: Path) -> dict[str, Path]:
    random = np.random.default_rng(0)
    labels = np.arange(48) % 2
    clips = random.integers(0, 150, (48, 4, 16, 16))
    clips[labels == 1, 1:3, 4:9] += 100
    np.savez(folder / "clips.npz", train_images=clips.astype(np.uint8), train_labels=labels)
    sequences = random.normal(size=(48, 3, 32)) + labels[:, None, None]
    np.savez(folder / "sequences.npz", train_sequences=sequences, train_labels=labels)
    return {
        "images": write_bars(folder / "images.npz"),
        "clips": folder / "clips.npz",
        "sequences": folder / "sequences.npz",
    }


def _row(run: Path, source: Path, backbone: str, variant: str) -> dict[str, object]:
    def trial(name: str, deterministic: bool) -> Trial:
        settings = StudySettings(
            data=DataSettings(source=str(source), max_train=32, size=_size(source, backbone)),
            backbone=backbone,
            variants=(variant,),
            control="none",
            epochs=EPOCHS,
            batch_size=8,
            deterministic=deterministic,
        )
        return Trial(run / name, settings, parse_variants([variant])[-1], 0)

    plain, plain_again = trial("plain", False), trial("again", False)
    asked, stopped = trial("asked", True), trial("stopped", True)
    for each in (plain, plain_again, asked):
        run_trial(each)
    _stop(stopped)
    run_trial(stopped)
    return {
        "status": [_status(each) for each in (plain, plain_again, asked, stopped)],
        "twice": _same(plain, plain_again),
        "deterministic": _same(plain, asked),
        "resumed": _same(asked, stopped),
    }


def _size(source: Path, backbone: str) -> int | None:
    return 32 if source.stem == "images" and backbone != "small" else None


def _stop(trial: Trial) -> None:
    def stop(classifier: Classifier) -> None:
        if classifier.current_epoch == EPOCHS - 1:
            raise SystemExit

    with patch.object(Classifier, "on_train_epoch_start", stop):
        try:
            run_trial(trial)
        except SystemExit:
            return
    raise AssertionError(f"{trial.name} was not stopped")


def _status(trial: Trial) -> str:
    record = trial.result()
    if record is None:
        return "no record"
    return "finished" if record["status"] == "finished" else str(record["reason"])


def _same(first: Trial, second: Trial) -> bool:
    records = [first.result(), second.result()]
    if not all(record is not None and record["status"] == "finished" for record in records):
        return False
    weights = [load_file(each.folder / "model.safetensors") for each in (first, second)]
    return records[0]["test"] == records[1]["test"] and all(  # type: ignore[index]
        torch.equal(value, weights[1][name]) for name, value in weights[0].items()
    )


if __name__ == "__main__":
    main()
