"""``python -m benchmarks.tables``: count, and write docs/tables.md."""

from pathlib import Path

from benchmarks.tables.page import page
from whatwhere.files import write_text

PAGE = Path(__file__).parents[2] / "docs" / "tables.md"

if __name__ == "__main__":
    write_text(PAGE, page())
    print(PAGE)
