"""The rooms and the one direction in which imports point."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "whatwhere"
# A room may import those of a lower level, and itself.
LEVELS = {
    "checks": 0,
    "evaluation": 0,
    "files": 0,
    "ops": 1,
    "gates": 2,
    "surgery": 3,
    "checkpoints": 4,
    "cost": 4,
    "look": 4,
    "paper": 4,
    "bench": 5,
    "export": 5,
    "study": 5,
    "trim": 5,
    "export_command": 6,
    "train_command": 6,
    "cli": 7,
    "__main__": 8,
}
HEAVY = ("numba", "triton", "lightning", "torchvision", "timm", "gradio", "matplotlib", "rich")


def room(path):
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported_rooms(path):
    for node in ast.walk(ast.parse(path.read_text())):
        modules = []
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            modules = [node.module]
            if node.module == "whatwhere":
                modules = [f"whatwhere.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        for module in modules:
            parts = module.split(".")
            if parts[0] == "whatwhere" and len(parts) > 1 and parts[1] in LEVELS:
                yield parts[1]


FILES = [path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_one_way(path):
    own = room(path)
    assert own in LEVELS, f"{own} is a new room: give it a level"
    for other in imported_rooms(path):
        assert other == own or LEVELS[other] < LEVELS[own], f"{own} imports {other}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_files_say_what_they_are_for_and_stay_short(path):
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text)), "no docstring at the top"
    assert text.count("\n") <= 300


def test_the_library_alone_is_light():
    code = f"import sys, whatwhere; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == "[]"
