"""Which files a streamed source is, what each is for, and reading bytes of them from anywhere."""

import os
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any
from urllib.parse import urlsplit

import fsspec

from whatwhere.study.data.base import DataError
from whatwhere.study.data.folder import SPLIT_NAMES
from whatwhere.study.data.splitting import SplitName
from whatwhere.study.data.stream.names import ENDINGS, PREFIX, Kind, expand, path_of

# What tells that a file was replaced: names differ between file systems.
STAMPS = ("ETag", "etag", "sha256", "mtime", "Last-Modified", "LastModified", "last_modified")
WAITS = (1.0, 4.0, 15.0)  # seconds, before a read that failed is tried again
READ_AHEAD = 2**22  # bytes fetched at once while a shard is read from start to end

_systems: dict[tuple[str, int], Any] = {}


@dataclass(frozen=True)
class Shard:
    """One file of many samples."""

    url: str  # or a path
    split: SplitName
    kind: Kind
    size: int
    stamp: str

    @property
    def name(self) -> str:
        """The file's name alone."""
        return path_of(self.url).name


def shards_of(source: str) -> list[Shard]:
    """The shards that a source names, in a fixed order, each with its split.

    Args:
        source: a path or URL with ``*`` and ``{000..011}`` or ``{train,val}``, or ``hf:NAME``.

    Raises:
        DataError: there are none, they are of another kind, or their splits can't be told.
    """
    if source.startswith(PREFIX):
        from whatwhere.study.data.stream.hugging_face import files_of

        named = files_of(source.removeprefix(PREFIX))
    else:
        urls = [url for pattern in expand(source) for url in _matching(pattern)]
        named = list(zip(urls, _splits(urls), strict=True))
    if len({url for url, _ in named}) != len(named):
        raise DataError(f"expected every shard once in {source!r}, got some of them twice")
    for url, _ in named:
        if path_of(url).suffix not in ENDINGS:
            raise DataError(
                f"expected uncompressed tar files of WebDataset, parquet or Arrow files, got {url}"
            )
    if all(split != "train" for _, split in named):
        listed = ", ".join(sorted({split for _, split in named}))
        raise DataError(f"expected shards to train on in {source!r}, got some for {listed} alone")
    with ThreadPoolExecutor() as pool:
        return list(pool.map(_shard, named))


def fetch(url: str, start: int, stop: int) -> bytes:
    """Bytes ``start`` to ``stop`` of a file anywhere; a failing network is tried again.

    Raises:
        DataError: they can't be had, or fewer of them.
    """
    with _failing_clearly(url):
        for attempt in range(len(WAITS) + 1):
            system, path = file_system(url)
            try:
                content: bytes = system.cat_file(path, start=start, end=stop)
                break
            except FileNotFoundError:
                raise
            except Exception:  # of whatever client the file system has
                if attempt == len(WAITS) or "://" not in url:
                    raise
                time.sleep(WAITS[attempt])
    if len(content) != stop - start:
        raise DataError(
            f"{url}: expected {stop - start} bytes from byte {start}, got {len(content)}: it is "
            "shorter than it was, or its server does not serve parts of files"
        )
    return content


@contextmanager
def opened(url: str, *, read_ahead: int = READ_AHEAD) -> Iterator[IO[bytes]]:
    """A file anywhere, to seek and read in.

    Raises:
        DataError: it can't be opened or read.
    """
    with _failing_clearly(url):
        system, path = file_system(url)
        options = {"block_size": read_ahead, "cache_type": "readahead"} if "://" in url else {}
        with system.open(path, "rb", **options) as file:
            if not file.seekable():
                raise DataError(f"{url}: expected a server that serves parts of files")
            yield file


@contextmanager
def _failing_clearly(url: str) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except Exception as problem:  # of whatever client the file system has
        raise DataError(f"{url} can't be read: {type(problem).__name__}: {problem}") from problem


def file_system(url: str) -> tuple[Any, str]:
    """The file system of a URL or path, and the path in it."""
    scheme = urlsplit(url).scheme if "://" in url else "file"
    # One that has connections serves the process that made it: a forked one needs its own.
    key = (scheme, os.getpid())
    if key not in _systems:
        try:
            _systems[key] = fsspec.filesystem(scheme, skip_instance_cache=True)
        except (ValueError, ImportError) as problem:
            raise DataError(f"{scheme}:// can't be read here: {problem}") from problem
    return _systems[key], _systems[key]._strip_protocol(url)


def _matching(pattern: str) -> list[str]:
    # In a URL, "?" begins a query.
    if not re.search(r"\*" if "://" in pattern else r"[*?\[]", pattern):
        return [pattern]
    with _failing_clearly(pattern):
        system, path = file_system(pattern)
        found = sorted(system.glob(path))
    if not found:
        raise DataError(f"expected shards that match {pattern!r}, found none")
    return [system.unstrip_protocol(each) if "://" in pattern else each for each in found]


def _splits(urls: list[str]) -> list[SplitName]:
    told = [_split(url) for url in urls]
    known = [split for split in told if split is not None]
    if not known:
        return ["train"] * len(urls)
    if len(known) < len(told):
        raise DataError(
            f"expected train, val or test in the name of every shard or of none; {urls[0]} and "
            f"others have it, {urls[told.index(None)]} has not"
        )
    return known


def _split(url: str) -> SplitName | None:
    path = path_of(url)
    words = re.split(r"[^a-z]+", path.name.lower())
    told = [word for word in (*words, path.parent.name.lower()) if word in SPLIT_NAMES]
    return SPLIT_NAMES[told[0]] if told else None


def _shard(named: tuple[str, SplitName]) -> Shard:
    url, split = named
    with _failing_clearly(url):
        system, path = file_system(url)
        facts = system.info(path)
    if facts["size"] is None or facts.get("partial", True) is False:
        raise DataError(f"{url}: expected a server that serves parts of files")
    stamp = next((str(facts[name]) for name in STAMPS if name in facts), "")
    return Shard(url, split, ENDINGS[path_of(url).suffix], facts["size"], stamp)
