"""A training's checkpoints: written whole, and read to the last byte before one is resumed from."""

import os
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO

from whatwhere.files import whole
from whatwhere.study.conditions import is_first_process

NEEDED = ("state_dict", "optimizer_states", "loops", "history", "epoch_so_far")


class WholeCheckpoints(TorchCheckpointIO):
    """Lightning's checkpoints, written beside their place, to the disk, and then renamed.

    Lightning's own way is through the system's temporary folder: from another disk the move is a
    copy that can be torn, and what a killed process had there stays for good.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write a checkpoint; readers see all of it or nothing."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        with whole(target) as part, part.open("wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())


def newest_checkpoint(folder: Path) -> Path | None:
    """The last checkpoint in a folder that is whole; those that are not are removed."""
    for saved in sorted(folder.glob("*.ckpt"), reverse=True):
        if _is_whole(saved):
            return saved
        if is_first_process():
            saved.unlink(missing_ok=True)
    return None


def _is_whole(path: Path) -> bool:
    # torch reads damaged weights without a word: it leaves the checksums, which it writes,
    # unchecked. So they are checked here.
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:
                return False
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # whatever readers of pickles and zips run into
        return False
    return isinstance(checkpoint, dict) and all(name in checkpoint for name in NEEDED)
