"""Tar shards as WebDataset writes them: consecutive files of one name are a sample."""

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import PurePosixPath
from typing import IO

from torchvision.datasets.folder import IMG_EXTENSIONS

from whatwhere.study.data.base import DataError
from whatwhere.study.data.stream.stored import LABEL_NAMES, Stored

BLOCK = 2**21  # bytes of neighbours that are read together
SAMPLE_ENDINGS = (*IMG_EXTENSIONS, ".npy")
LABEL_ENDINGS = (".cls", ".json", ".txt")  # the first that says something

NO_LABEL = f"no label: expected .cls, .txt, or .json with one of {', '.join(LABEL_NAMES)}"


@dataclass(frozen=True)
class Entry:
    """A file of the archive that matters: its sample's name, its ending, where it begins."""

    sample: str
    ending: str
    start: int
    content: bytes


def scan(url: str, file: IO[bytes]) -> Iterator[Stored]:
    """Every sample of a shard in order, from one reading from its start to its end.

    Raises:
        DataError: it is no tar archive, is damaged, or ends before its end.
    """
    block, begins = 0, 0
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            for name, entries in groupby(_entries(archive), lambda entry: entry.sample):
                found = _sample(name, list(entries))
                if found.place + found.size - begins > BLOCK:
                    block, begins = block + 1, found.place
                yield found.in_block(block)
            file.seek(archive.offset)
            # tarfile takes whatever is no header for the end, which is 512 zeros.
            if file.read(512) != bytes(512):
                raise DataError(f"{url} is damaged or cut off at byte {archive.offset}")
    except tarfile.TarError as problem:
        raise DataError(
            f"{url} is damaged, cut off, or no uncompressed tar archive: {problem}"
        ) from problem


def _entries(archive: tarfile.TarFile) -> Iterator[Entry]:
    for member in archive:
        path = PurePosixPath(member.name)
        ending = path.suffix.lower()
        # What macOS leaves in archives looks like samples and is none.
        hidden = path.name.startswith(".") or "__MACOSX" in path.parts
        if not member.isfile() or hidden or ending not in (*SAMPLE_ENDINGS, *LABEL_ENDINGS):
            continue
        content = archive.extractfile(member)
        assert content is not None  # a file has content
        sample = str(path.with_name(path.name.partition(".")[0]))
        yield Entry(sample, ending, member.offset_data, content.read())


def _sample(name: str, entries: list[Entry]) -> Stored:
    samples = [entry for entry in entries if entry.ending in SAMPLE_ENDINGS]
    if len(samples) != 1:
        endings = ", ".join(entry.ending for entry in entries)
        reason = f"expected one image or array, got {len(samples)} among its files {endings}"
        return Stored(name, entries[0].start, 0, b"", None, reason)
    [only] = samples
    label: str | None = None
    problem: str | None = NO_LABEL
    try:
        label = _first_label(entries)
    except ValueError as error:
        problem = f"its label can't be read: {error}"
    if label is not None:
        problem = None
    return Stored(name, only.start, len(only.content), only.content, label, problem)


def _first_label(entries: list[Entry]) -> str | None:
    by_ending = {entry.ending: entry.content for entry in entries}
    for ending in LABEL_ENDINGS:
        if ending in by_ending and (label := _label(ending, by_ending[ending])) is not None:
            return label
    return None


def _label(ending: str, content: bytes) -> str | None:
    text = content.decode().strip()
    if ending == ".json":
        fields = json.loads(text)
        if not isinstance(fields, dict):
            fields = {LABEL_NAMES[0]: fields}
        values = [fields[name] for name in LABEL_NAMES if name in fields]
        text = str(values[0]) if values and isinstance(values[0], str | int) else ""
    return text if text != "" else None
