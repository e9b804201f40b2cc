"""YOLO networks, built by ultralytics from the yaml files it brings.

Importing it sets torch's threads and writes a file of settings, so it is imported where a network
is built, in a process of its own, and the settings go to a temporary folder.
"""

import os
import tempfile
from collections.abc import Callable, Iterator

from torch import nn

from benchmarks.reach.catalog.entry import Entry, image

NAMES = (
    *("yolov3-tiny", "yolov5n", "yolov8n", "yolov8n-seg", "yolov8n-pose", "yolov8n-obb"),
    *("yolov8n-cls", "yolov9t", "yolov10n", "yolo11n", "yolo12n", "yolo26n"),
)


def entries() -> Iterator[Entry]:
    """The networks, in the order of the table."""
    for name in NAMES:
        yield Entry(name, _build(name), image(128))


def _build(name: str) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        os.environ["YOLO_OFFLINE"] = "True"
        with tempfile.TemporaryDirectory() as settings:
            os.environ["YOLO_CONFIG_DIR"] = settings
            from ultralytics import YOLO

            model: nn.Module = YOLO(f"{name}.yaml").model
        return model

    return build
