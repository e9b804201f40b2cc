"""One reading of every shard before training: what is where, its label, whether it can be decoded.

A shard's index is kept in the user's cache folder, so that no process reads the shard again to
train on it, and a reading that was stopped goes on with the next shard.
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from whatwhere.files import cache_folder, write_bytes
from whatwhere.study.data.base import DataError, SkippedFile
from whatwhere.study.data.folder import decode
from whatwhere.study.data.pixels import fit
from whatwhere.study.data.stream import arrow, parquet, tar
from whatwhere.study.data.stream.shards import Shard, opened
from whatwhere.study.data.stream.stored import Stored

FORMAT = 1  # of the files kept; another number leaves older ones unread
SCAN = {"tar": tar.scan, "parquet": parquet.scan, "arrow": arrow.scan}
COLUMNS = ("place", "size", "block", "label", "mean", "variance", "low", "high")


@dataclass(frozen=True)
class ShardIndex:
    """What one shard has, a row for each sample that can be used."""

    place: NDArray[np.int64]
    size: NDArray[np.int64]
    block: NDArray[np.int64]  # of this shard, not ascending by one
    label: NDArray[np.int64]  # position in ``labels``
    mean: NDArray[np.float32]  # (N, C) of the values that the network is shown unaugmented
    variance: NDArray[np.float32]
    low: NDArray[np.float32]
    high: NDArray[np.float32]
    labels: tuple[str, ...]
    shape: tuple[int, ...]  # of a sample that is no image; () of images
    grey: bool  # all of them
    digest: str
    skipped: tuple[SkippedFile, ...]


def read_sample(content: bytes, side: int) -> Tensor:
    """A sample's content as it is stored: uint8 pixels (1 or 3, side, side), or float32 (C, L).

    Raises:
        ValueError: it is neither an image nor an array of a kind that is known.
        OSError: the image is damaged. PIL's readers raise others as well.
    """
    if not content.startswith(b"\x93NUMPY"):
        return fit(decode(content, side), side)
    array = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    if array.dtype == np.uint8 and (
        array.ndim == 2 or (array.ndim == 3 and len(array.T) in (1, 3))
    ):
        pixels = array[None] if array.ndim == 2 else np.ascontiguousarray(array.transpose(2, 0, 1))
        return fit(torch.from_numpy(pixels), side)
    if array.dtype.kind not in "fi" or array.ndim != 2:
        raise ValueError(
            f"expected uint8 (H, W), (H, W, 1) or (H, W, 3), or numbers (C, L), got {array.dtype} "
            f"of {array.shape}"
        )
    sequence = torch.from_numpy(array.astype(np.float32))
    if not sequence.isfinite().all():
        raise ValueError("expected finite values, got NaN or infinity")
    return sequence


def index_of(shards: Sequence[Shard], *, size: int, side: int) -> list[ShardIndex]:
    """The index of every shard, from the cache or from reading it.

    Args:
        shards: in order.
        size: side of the centre that a network sees of an image.
        side: of images as they are stored, a little larger.

    Raises:
        DataError: a shard can't be read to its end.
    """
    folder = cache_folder() / "shards"
    console = Console(stderr=True)
    with (
        Progress(console=console, transient=True, disable=not console.is_terminal) as progress,
        ThreadPoolExecutor() as pool,
    ):
        bar = progress.add_task("Reading shards once", total=sum(each.size for each in shards))

        def one(shard: Shard) -> ShardIndex:
            path = folder / f"{_key(shard, size, side)}.npz"
            known = _load(path)
            if known is None:
                with _alone(path):
                    known = _load(path)
                    if known is None:
                        known = _read(shard, size=size, side=side)
                        _save(path, known)
            progress.advance(bar, shard.size)
            return known

        try:
            return list(pool.map(one, shards))
        except BaseException:
            pool.shutdown(cancel_futures=True)  # or it would first read all the others
            raise


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    # Of several processes that begin together, one reads a shard; the others wait for its index.
    with ExitStack() as stack:
        with suppress(OSError):  # nothing can be kept here: each reads for itself
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(path.with_suffix(".lock")))
        yield


def _read(shard: Shard, *, size: int, side: int) -> ShardIndex:
    rows: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    labels: dict[str, int] = {}
    skipped: list[SkippedFile] = []
    shapes: set[tuple[int, ...]] = set()
    grey = True
    total = hashlib.sha256()
    with opened(shard.url) as file:
        for stored in SCAN[shard.kind](shard.url, file):
            sample = _usable(stored, side)
            if isinstance(sample, str):
                skipped.append(SkippedFile(f"{shard.url}: {stored.name}", sample))
                continue
            assert stored.label is not None  # or it would have a problem
            content = hashlib.sha256(stored.content).hexdigest()
            total.update(f"{stored.name} {stored.label} {content}\n".encode())
            image = sample.dtype == torch.uint8
            shapes.add(() if image else tuple(sample.shape))
            grey = grey and len(sample) == 1
            rows["place"].append(stored.place)
            rows["size"].append(stored.size)
            rows["block"].append(stored.block)
            rows["label"].append(labels.setdefault(stored.label, len(labels)))
            _measure(rows, _centre(sample, size) if image else sample)
    if len(shapes) > 1:
        raise DataError(
            f"{shard.url}: expected images alone or arrays of one shape, got images and arrays, or "
            f"arrays of shapes {sorted(shapes - {()})}"
        )
    return ShardIndex(
        place=np.array(rows["place"], np.int64),
        size=np.array(rows["size"], np.int64),
        block=np.array(rows["block"], np.int64),
        label=np.array(rows["label"], np.int64),
        mean=np.array(rows["mean"], np.float32),
        variance=np.array(rows["variance"], np.float32),
        low=np.array(rows["low"], np.float32),
        high=np.array(rows["high"], np.float32),
        labels=tuple(labels),
        shape=shapes.pop() if shapes else (),
        grey=grey,
        digest=total.hexdigest(),
        skipped=tuple(skipped),
    )


def _usable(stored: Stored, side: int) -> Tensor | str:
    if stored.problem is not None:
        return stored.problem
    try:
        return read_sample(stored.content, side)
    # PIL's readers raise whatever their parser runs into, not only OSError.
    except Exception as problem:
        return f"{type(problem).__name__}: {problem}"


def _centre(pixels: Tensor, size: int) -> Tensor:
    from torchvision.transforms.v2 import functional as v2

    centre: Tensor = v2.center_crop(pixels, [size, size])
    return centre.expand(3, *centre.shape[1:])  # whether all are grey is known at the end only


def _measure(rows: dict[str, list[Any]], shown: Tensor) -> None:
    flat = shown.flatten(1).double()
    rows["mean"].append(flat.mean(1).numpy())
    rows["variance"].append(flat.var(1, correction=0).numpy())
    rows["low"].append(float(flat.min()))
    rows["high"].append(float(flat.max()))


def _key(shard: Shard, size: int, side: int) -> str:
    told = json.dumps([FORMAT, shard.url, shard.size, shard.stamp, size, side])
    return hashlib.sha256(told.encode()).hexdigest()[:32]


def _save(path: Path, index: ShardIndex) -> None:
    facts = {
        "labels": index.labels,
        "shape": index.shape,
        "grey": index.grey,
        "digest": index.digest,
        "skipped": [[each.path, each.reason] for each in index.skipped],
    }
    content = io.BytesIO()
    np.savez(
        content,
        facts=np.frombuffer(json.dumps(facts).encode(), np.uint8),
        **{name: getattr(index, name) for name in COLUMNS},
    )
    try:
        write_bytes(path, content.getvalue())
    except OSError as problem:
        Console(stderr=True, soft_wrap=True).print(
            f"the index of a shard can't be kept in {path.parent} ({problem.strerror}), so every "
            "process will read all shards before it trains"
        )


def _load(path: Path) -> ShardIndex | None:
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as kept:
            facts = json.loads(kept["facts"].tobytes())
            columns = {name: kept[name] for name in COLUMNS}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None  # torn by a full disk, say: it is written again
    return ShardIndex(
        **columns,
        labels=tuple(facts["labels"]),
        shape=tuple(facts["shape"]),
        grey=facts["grey"],
        digest=facts["digest"],
        skipped=tuple(SkippedFile(*each) for each in facts["skipped"]),
    )
