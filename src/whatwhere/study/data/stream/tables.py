"""Columns of tables: which holds the images, which the labels, and what a row of them is."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from whatwhere.study.data.base import DataError
from whatwhere.study.data.stream.stored import LABEL_NAMES, Stored

IMAGE_NAMES = ("image", "img", "jpg", "jpeg", "png")
LARGEST_GROUP = 2**28  # bytes; a group of rows is read whole for one sample of it


@dataclass(frozen=True)
class Columns:
    """Where the samples and labels are."""

    image: str
    label: str
    classes: tuple[str, ...]  # of a label that is a number; () if unknown


def columns_of(url: str, schema: Any) -> Columns:
    """The columns of images and labels, from Hugging Face's own description or from their names.

    Raises:
        DataError: there is not exactly one of each.
    """
    metadata = {} if schema.metadata is None else schema.metadata
    known = json.loads(metadata.get(b"huggingface", b"{}"))
    features = known.get("info", {}).get("features", {})

    def typed(kind: str) -> list[str]:
        return [
            name
            for name, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == kind
        ]

    images = typed("Image")
    if not images:
        images = [name for name in IMAGE_NAMES if name in schema.names]
    labels = typed("ClassLabel")
    if len(labels) != 1:
        candidates = labels if labels else schema.names
        labels = [name for name in LABEL_NAMES if name in candidates][:1]
    if len(images) != 1 or len(labels) != 1:
        raise DataError(
            f"{url}: expected one column of images and one of labels, named as in "
            f"{', '.join(IMAGE_NAMES)} and {', '.join(LABEL_NAMES)}, got {', '.join(schema.names)}"
        )
    classes = features.get(labels[0], {}).get("names", ())
    return Columns(images[0], labels[0], tuple(classes))


def contents(column: Any) -> Iterator[bytes | None]:
    """The content of each image in a column, of bytes or as Hugging Face keeps them."""
    for each in column.to_pylist():
        yield each["bytes"] if isinstance(each, dict) else each


def rows(table: Any, columns: Columns, *, group: int, name: str) -> Iterator[Stored]:
    """Every row of a group as a sample."""
    labels = table[columns.label].to_pylist()
    for row, content in enumerate(contents(table[columns.image])):
        stored = _stored(f"row {row} of {name}", row, content, labels[row], columns)
        yield stored.in_block(group)


def check_size(url: str, size: int) -> None:
    """Refuse groups of rows that are too large to be read for a few samples of them."""
    if size > LARGEST_GROUP:
        raise DataError(
            f"{url}: expected groups of rows of at most {LARGEST_GROUP >> 20} MiB, got one of "
            f"{size >> 20} MiB; write it again with fewer rows in a group"
        )


def _stored(name: str, row: int, content: bytes | None, label: Any, columns: Columns) -> Stored:
    problem = None
    if content is None:
        problem = "no image: its bytes are not in the file"
    if columns.classes and isinstance(label, int):
        label = columns.classes[label] if 0 <= label < len(columns.classes) else None
    if label is None and problem is None:
        problem = f"no label in the column {columns.label}"
    kept = b"" if content is None else content
    return Stored(name, row, len(kept), kept, None if label is None else str(label), problem)
