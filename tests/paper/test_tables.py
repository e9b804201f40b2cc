"""The page of tables is what is counted, and a row that does not match is seen."""

from pathlib import Path

import pytest
import torch

from benchmarks.tables.cbam import table_1, table_2, table_4, table_5
from benchmarks.tables.counted import Count, named
from benchmarks.tables.others import others
from benchmarks.tables.page import page
from benchmarks.tables.rows import Row, matching
from whatwhere import cost, paper

pytestmark = pytest.mark.xdist_group("tables")  # one process keeps what was counted

PAGE = Path(__file__).parents[2] / "docs" / "tables.md"


def test_the_page_is_what_is_counted():
    assert PAGE.read_text(encoding="utf-8") == page(), "run python -m benchmarks.tables"


def test_tables_4_and_5_match_to_every_digit():
    rows = [*table_4(), *table_5()]
    assert len(rows) == 24 + 6
    assert matching(rows, "parameters") == matching(rows, "macs") == 30


@pytest.mark.parametrize(
    ("table", "parameters", "macs"),
    [(table_1, [1, 0, 0, 0], [1, 0, 0, 0]), (table_2, [1, 1, 1, 1, 1, 1], [1, 0, 0, 1, 1, 1])],
)
def test_rows_of_tables_1_and_2_that_can_not_be_do_not_match(table, parameters, macs):
    rows = table()
    assert [row.matches("parameters") for row in rows] == parameters
    assert [row.matches("macs") for row in rows] == macs


def test_table_1_prints_the_sizes_of_bam():
    bam, plain = named("resnet50-bam"), named("resnet50")
    twice = Count(bam.parameters, plain.macs + 2 * (bam - plain).macs)
    mean, both = table_1()[1], table_1()[3]
    for row, really in ((mean, bam), (both, twice)):
        told = Row(row.cells, row.parameters, row.macs, really)
        assert told.matches("parameters")
        assert told.matches("macs")


def test_other_figures_match():
    assert len(others()) == 11
    assert [figure for figure in others() if not figure.matches()] == []


@pytest.mark.parametrize(
    ("count", "matches"),
    [
        (Count(25_557_032, 3_857_973_248), (True, True)),
        (Count(25_564_999, 3_857_500_001), (True, True)),
        (Count(25_565_001, 3_858_500_001), (False, False)),
        (Count(25_554_999, 3_857_499_999), (False, False)),
    ],
)
def test_a_row_matches_by_the_digits_printed(count, matches):
    row = Row(("resnet50", "none"), "25.56", "3.858", count)
    assert (row.matches("parameters"), row.matches("macs")) == matches


def test_counting_without_values_is_counting():
    network = paper.build("resnet18-cbam")
    macs = cost.macs(network, torch.zeros(1, 3, 224, 224))
    assert named("resnet18-cbam") == Count(cost.parameters(network), macs)
