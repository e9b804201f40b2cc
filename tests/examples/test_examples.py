"""The examples and the notebook run as they stand; only shorter."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name, *arguments):
    """What the example printed."""
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_image_folder(tmp_path):
    printed = run("image_folder.py", "--out", tmp_path / "study", "--epochs", 1, "--seeds", 1)
    shares = re.findall(r"^(\S+) +seed 0: (0\.\d+|1\.0+) right$", printed, flags=re.MULTILINE)
    assert [name for name, _ in shares] == ["none", "eca", "cbam:kernel_size=3", "wider"]
    pictures = tmp_path / "study-pictures"
    counts = {folder: len(list(pictures.glob(f"{folder}/*/*.png"))) for folder in ("train", "val")}
    assert counts == {"train": 513, "val": 513}
    assert (tmp_path / "study" / "report.html").stat().st_size > 10_000


def test_fine_tune():
    printed = run("fine_tune.py", "--epochs", 2, "--seeds", 1)
    assert re.search(r"^pretrained: 0\.\d+ of its own task$", printed, flags=re.MULTILINE)
    found = re.search(r"^seed 0: fine-tuned (0\.\d+), with gates (0\.\d+)$", printed, re.MULTILINE)
    assert found is not None


def test_video(tmp_path):
    printed = run("video.py", "--out", tmp_path, "--clips", 100, "--epochs", 1)
    assert printed.count("(when): ") == printed.count("(where): ") == 3
    assert (tmp_path / "gates.png").read_bytes().startswith(b"\x89PNG")


def test_sequence(tmp_path):
    printed = run("sequence.py", "--out", tmp_path, "--epochs", 1)
    assert printed.count("while the digit is there") == 3
    assert (tmp_path / "gates.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.filterwarnings("ignore")  # of the kernel's own libraries
def test_notebook(tmp_path):
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    notebook = nbformat.read(EXAMPLES / "tour.ipynb", as_version=4)
    kept = [cell.source for cell in notebook.cells]
    nbclient.NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    assert [cell.source for cell in notebook.cells] == kept
    shown = [
        output
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if output.output_type in ("display_data", "execute_result") and "image/png" in output.data
    ]
    assert len(shown) == 2
