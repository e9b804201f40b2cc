"""docs/family.md is what the gates say of themselves."""

import inspect

from benchmarks.family import PAGE, page
from whatwhere.gates.family import FAMILY


def test_the_page_is_what_the_program_writes():
    assert PAGE.read_text() == page(), "run python -m benchmarks.family"


def test_every_gate_has_its_source():
    for name, builder in FAMILY.items():
        text = inspect.getdoc(builder)
        if inspect.isfunction(builder):
            assert "Source: " in text, name
