"""A study's trial on several devices: a process of its own, from which Lightning starts the rest.

Lightning starts a training's further processes by running the command of the first again, so that
the first must be a command that does one trial and nothing else: this module's.
"""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from whatwhere.files import write_json
from whatwhere.study import trial as trials
from whatwhere.study.data import DataSettings
from whatwhere.study.devices import Devices
from whatwhere.study.machine import end_with_input
from whatwhere.study.settings import StudyError, StudySettings, parse_variants, widened
from whatwhere.study.trial import Trial

ENDS_STUDY = 3  # what a process ends with where no other trial would go right either


def run_trial(trial: Trial) -> None:
    """Run or resume a trial to its record, on as many devices as its settings ask for."""
    if trial.settings.devices.processes == 1:
        trials.run_trial(trial)
    elif not trial.done():
        _run_apart(trial)


def _run_apart(trial: Trial) -> None:
    trial.folder.mkdir(parents=True, exist_ok=True)
    (trial.folder / "result.json").unlink(missing_ok=True)  # an earlier failure
    threads = max(1, torch.get_num_threads() // trial.settings.devices.devices)
    command = [sys.executable, "-m", "whatwhere.study.launch", _spell(trial)]
    # Of a SLURM job's variables Lightning would conclude that SLURM starts the other processes.
    own = {name: text for name, text in os.environ.items() if not name.startswith("SLURM_")}
    output = trial.folder / "output.txt"
    with (
        output.open("w", encoding="utf-8") as said,
        subprocess.Popen(
            command,
            # Never written to: it closes when this process ends, however it ends, and so do they.
            stdin=subprocess.PIPE,
            stdout=said,
            stderr=subprocess.STDOUT,
            env={**own, "OMP_NUM_THREADS": str(threads)},
        ) as process,
    ):
        code = process.wait()
    if trial.result() is not None:
        output.unlink()
        return
    if code == ENDS_STUDY:
        raise StudyError(output.read_text(encoding="utf-8").strip().rpartition("\n")[2])
    record = trials.empty_record(
        trial,
        status="failed",
        reason=f"its processes ended with code {code} and left no record; see {output}",
    )
    write_json(trial.folder / "result.json", {**record, "seconds": 0.0})


def _spell(trial: Trial) -> str:
    return json.dumps(
        {
            "run": str(trial.run),
            "settings": asdict(trial.settings),
            "variant": [trial.variant.role, trial.variant.name, trial.variant.width],
            "seed": trial.seed,
            "fraction": trial.fraction,
            "fingerprint": trial.fingerprint,
        }
    )


def _read(text: str) -> Trial:
    told: dict[str, Any] = json.loads(text)
    given = told["settings"]
    settings = StudySettings(
        **{
            **given,
            "data": DataSettings(**given["data"]),
            "devices": Devices(**given["devices"]),
            "variants": tuple(given["variants"]),
            "fractions": tuple(given["fractions"]),
        }
    )
    role, name, width = told["variant"]
    variant = widened(width) if role == "control" else parse_variants([name])[-1]
    return Trial(
        Path(told["run"]),
        settings,
        variant,
        told["seed"],
        fraction=told["fraction"],
        fingerprint=told["fingerprint"],
    )


if __name__ == "__main__":
    end_with_input()
    sys.path.insert(0, str(Path.cwd()))  # where a backbone of the user's own is
    try:
        ended = trials.run_trial(_read(sys.argv[1]))["status"]
    except StudyError as error:
        print(error, flush=True)
        sys.exit(ENDS_STUDY)
    if ended == "failed":
        sys.exit(1)
