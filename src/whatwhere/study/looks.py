"""What a trial's gates do on test samples: their records, and a picture."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from whatwhere.look import diagnose
from whatwhere.look.pictures import figure
from whatwhere.study.data import StudyData

PICTURED_SAMPLES = 4
DIAGNOSED_SAMPLES = 512


def gate_records(network: nn.Module, study_data: StudyData) -> list[dict[str, Any]]:
    """A record of each gate, over the first test samples."""
    count = min(len(study_data.test), DIAGNOSED_SAMPLES)
    inputs = torch.stack([study_data.test[index][0] for index in range(count)])
    records = diagnose(network, inputs.split(64), truth=study_data.truth)
    return [record.as_dict() for record in records]


def draw_gates(network: nn.Module, study_data: StudyData, path: Path) -> None:
    """Draw the gates over a few test samples, spread evenly."""
    spread = range(0, len(study_data.test), max(1, len(study_data.test) // PICTURED_SAMPLES))
    chosen = list(spread)[:PICTURED_SAMPLES]
    samples: Tensor = torch.stack([study_data.test[index][0] for index in chosen])
    drawn = figure(
        network,
        samples,
        display=study_data.unnormalise(samples),
        titles=[study_data.classes[study_data.test[index][1]] for index in chosen],
        grad_cam=False,
    )
    drawn.savefig(path, dpi=110, bbox_inches="tight")
