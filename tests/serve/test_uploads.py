"""Files are told by their content, and refused before what they hold is decoded."""

import io
import socket
import struct
import zlib

import av
import numpy as np
import pytest
from PIL import Image

from whatwhere.inputs import Preparation
from whatwhere.serve import uploads
from whatwhere.serve.uploads import UploadError, check, take


def png(size=(8, 8)):
    buffer = io.BytesIO()
    Image.new("L", size, 200).save(buffer, format="PNG")
    return buffer.getvalue()


def png_that_claims(width, height):
    """A small PNG whose header says otherwise, checksum and all."""
    content = bytearray(png())
    header = b"IHDR" + struct.pack(">II", width, height) + bytes(content[24:29])
    content[12:33] = header + struct.pack(">I", zlib.crc32(header))
    return bytes(content)


def npz(**arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def npy_that_claims(shape):
    buffer = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue()


def mp4(frames=6, side=32):
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = side
        stream.pix_fmt = "yuv420p"
        for index in range(frames):
            picture = np.full((side, side, 3), 20 * index, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        container.mux(stream.encode(None))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "name", "kind"),
    [
        (png(), "a.mp4", "image"),
        (mp4(), "a.png", "clip"),
        (npz(a=np.zeros(3)), "a.jpg", "arrays"),
        (npy_that_claims((0,)), "a.txt", "arrays"),
    ],
    ids=["png", "mp4", "npz", "npy"],
)
def test_content_decides_and_not_the_name(tmp_path, content, name, kind):
    path = tmp_path / name
    path.write_bytes(content)
    assert check(path) == kind


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "got an empty file"),
        (b"just a text", "its content is none of these"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "none of these"),
        (png_that_claims(8000, 8000), "at most 50 megapixels, got 8000 × 8000"),
        (png_that_claims(60000, 60000), "at most 50 megapixels, got more"),
        (npz(a=np.array([None])), "got Python objects"),
        (npy_that_claims((10**6, 10**3)), "at most 256 MB, got 3,815 MB"),
        (b"PK\x03\x04 and no archive", "the arrays cannot be read"),
    ],
    ids=["empty", "text", "eps", "large", "bomb", "objects", "claims", "torn"],
)
def test_what_is_refused(tmp_path, content, message):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(UploadError, match=message):
        check(path)


def test_an_archive_of_arrays_counts_as_what_it_becomes(tmp_path):
    path = tmp_path / "zeros.npz"
    np.savez_compressed(
        path, a=np.zeros((150, 2**20), np.uint8), b=np.zeros((150, 2**20), np.uint8)
    )
    assert path.stat().st_size < 2**20
    with pytest.raises(UploadError, match="at most 256 MB, got 300 MB"):
        check(path)


def test_files_and_clips_have_a_longest(tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_bytes(mp4(frames=12))
    assert check(path) == "clip"
    monkeypatch.setattr(uploads, "SECONDS", 1)
    with pytest.raises(UploadError, match="at most 1 seconds"):
        check(path)
    monkeypatch.setattr(uploads, "SECONDS", 120)
    monkeypatch.setattr(uploads, "FRAME_MEGAPIXELS", 0)
    with pytest.raises(UploadError, match="got 32 × 32"):
        check(path)
    monkeypatch.setattr(uploads, "MEGABYTES", 0)
    with pytest.raises(UploadError, match="at most 0 MB"):
        check(path)


@pytest.mark.parametrize(
    "playlist",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile '{}'\n",
    ],
    ids=["hls", "concat"],
)
def test_a_playlist_is_not_followed(tmp_path, playlist):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        path = tmp_path / "a.m3u8"
        path.write_text(playlist.format(f"http://127.0.0.1:{listening.getsockname()[1]}/a.ts"))
        with pytest.raises(UploadError):
            check(path)
        with pytest.raises(BlockingIOError):
            listening.accept()


def test_an_upload_becomes_what_the_network_takes(tmp_path):
    path = tmp_path / "picture.txt"
    path.write_bytes(png((16, 16)))
    given = take(path, Preparation((1, 8, 8), (0.5,), (0.25,)))
    assert given.x.shape == (1, 1, 8, 8)
    assert given.x.unique().item() == pytest.approx((200 / 255 - 0.5) / 0.25)
    with pytest.raises(UploadError, match="sequences"):
        take(path, Preparation((1, 30), (0.0,), (1.0,)))
