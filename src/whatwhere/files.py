"""Files that are whole or absent: every write goes to a temporary name and is then renamed."""

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Give another name beside ``path``; what is written there takes its place at the end.

    Where the block raises, what was at ``path`` stays, and nothing else does.
    """
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")  # also unlike another machine's
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)  # there still if the disk is full


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically: readers see the old content or the new, never a part."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write any file atomically."""
    with whole(path) as part, part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def cache_folder() -> Path:
    """Where what can be made again is kept: the user's cache folder."""
    root = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if root.is_absolute():  # any other is to be ignored, says the specification of that variable
        return root / "whatwhere"
    try:
        return Path.home() / ".cache" / "whatwhere"
    except RuntimeError:  # no home, as in some containers
        return Path("/nonexistent/whatwhere")


def remove_parts(folder: Path) -> None:
    """Remove what killed writers left of files they had not finished."""
    for part in folder.rglob(".*.part"):
        part.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON; None where there is no file.

    Raises:
        ValueError: the file is not JSON, which a file written here always is.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except json.JSONDecodeError as error:
        raise ValueError(f"expected JSON in {path}, got: {error}") from error


def read_told(path: Path) -> dict[str, Any]:
    """Read a JSON object that can be done without: empty where the file is not there or damaged.

    >>> read_told(Path("nowhere.json"))
    {}
    """
    try:
        content = read_json(path)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}
