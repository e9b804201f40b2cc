"""Frames of a video file, evenly spaced over all of it, by PyAV."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whatwhere.inputs.preparation import InputError

Frames = dict[int, NDArray[np.uint8]]

CONTAINERS = (
    *("mov", "mp4", "m4a", "3gp", "3g2", "mj2", "matroska", "webm", "avi", "gif", "apng"),
    *("mpeg", "mpegvideo", "mpegts", "ogg", "flv", "asf", "h264", "hevc", "ivf", "nut", "m4v"),
)


def read_frames(path: Path, count: int, longest: int) -> NDArray[np.uint8]:
    """Upright RGB frames (T, H, W, 3), the first and the last of the file among them.

    Of a file with fewer frames than wanted, frames come more than once.

    Args:
        path: what PyAV can decode, by content.
        count: how many.
        longest: of the sides, which are made smaller in the video's own aspect.

    Raises:
        InputError: it is no video, or has no frame that can be decoded.
        ImportError: PyAV is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise ImportError(
            'expected PyAV for video, which is not installed: pip install "whatwhere[look]"'
        ) from error
    try:
        total = _packets(path)
        frames, decoded = _decoded(path, _evenly(total, count), longest)
        if decoded < total and len(frames) < len(set(_evenly(total, count))):
            # Some packets held no frame, or the file breaks off: what came is the video.
            total = decoded
            frames, _ = _decoded(path, _evenly(total, count), longest)
    except av.error.FFmpegError as error:
        raise InputError(f"neither an image, a video nor arrays: {error.strerror}") from error
    if not frames:
        raise InputError("a video without a frame that can be decoded")
    return np.stack([frames[place] for place in _evenly(total, count)])


def _evenly(total: int, count: int) -> list[int]:
    if total < 1:
        return []
    if count == 1:
        return [(total - 1) // 2]
    return [round(i * (total - 1) / (count - 1)) for i in range(count)]


def _opened(path: Path) -> Any:
    import av

    # Playlists name other files and hosts, and text is a video to some readers: neither is read.
    options = {"format_whitelist": ",".join(CONTAINERS), "protocol_whitelist": "file"}
    container = av.open(str(path), options=options)
    if not container.streams.video:
        container.close()
        raise InputError("neither an image, a video nor arrays: there are no pictures in it")
    return container


def _packets(path: Path) -> int:
    with _opened(path) as container:
        return sum(1 for each in container.demux(container.streams.video[0]) if each.size > 0)


def _decoded(path: Path, wanted: Sequence[int], longest: int) -> tuple[Frames, int]:
    """The wanted frames by number, and how many were decoded for them."""
    import av

    frames: Frames = {}
    decoded = 0
    with _opened(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        try:
            for place, frame in enumerate(container.decode(stream)):
                decoded = place + 1
                if place in wanted:
                    frames[place] = _upright(frame, stream, longest)
                if place >= wanted[-1]:
                    break
        except av.error.FFmpegError:
            if decoded == 0:
                raise
    return frames, decoded


def _upright(frame: Any, stream: Any, longest: int) -> NDArray[np.uint8]:
    """RGB pixels as a player shows them: square, turned as the file says, not too large."""
    wide = float(stream.sample_aspect_ratio or 1)
    width, height = stream.codec_context.width * wide, float(stream.codec_context.height)
    scale = min(1.0, longest / max(width, height))
    size = {"width": max(1, round(width * scale)), "height": max(1, round(height * scale))}
    pixels: NDArray[np.uint8] = frame.to_ndarray(format="rgb24", **size)
    # In degrees counterclockwise, as np.rot90 turns.
    return np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90)))
