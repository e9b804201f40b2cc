"""From records to numbers: everything that is computed, on made-up measurements."""

import pytest

from whatwhere.bench import summary
from whatwhere.bench.tables import page


def quartiles(median):
    return [0.9 * median, median, 1.1 * median]


def row(case, *, dtype="float32", ours=2.0, kernels=None, **peers):
    """A row; times in copies of x, peers as seed_eager=8.0, seed_compiled=5.0, ..."""
    names = {name: name.rpartition("_")[2] for name in peers}
    both = {"copy": 1.0, "ours": ours, **peers}
    if kernels is not None:
        both["our kernels"] = kernels
    times = {
        name: {
            "seconds": quartiles(value / 1000),
            "to_copy": quartiles(value),
            "to_ours": quartiles(value / ours),
        }
        for name, value in both.items()
    }
    timed = {
        "times": times,
        "rounds": 9,
        "dropped_rounds": 0,
        "others": 0.01,
        "disturbed": False,
    }
    memory = {"saved": 1.0, "forward": 2.0, "both": 3.0}
    return {
        "kind": "row",
        "case": case,
        "status": "measured",
        "dtype": dtype,
        "seconds": 60.0,
        "variants": {"ours": "ours", **names},
        "passes": {"forward": timed, "both": timed},
        "memory": dict.fromkeys(("ours", *peers), memory),
        "first_call_seconds": {name: {"forward": 1.0, "both": 2.0} for name in ("ours", *peers)},
        "absent": {} if kernels is not None else {"our kernels": "there are none"},
        "machine": {
            "processor": "a CPU",
            "cores": 2,
            "capability": "AVX2",
            "system": "Linux",
            "python": "3.11",
            "commit": "abc",
        },
        "stamp": {"threads": 2, "versions": {"torch": "2.14.1"}, "environment": {}},
    }


def mean_of(found, quantity, which="forward", dtype="float32"):
    (only,) = [
        each
        for each in found
        if (each["quantity"], each["pass"], each["dtype"]) == (quantity, which, dtype)
    ]
    return only


def test_means_over_rows_and_their_worst_row():
    rows = [
        row("a", ours=1.0, seed_eager=8.0, amax_eager=4.0, seed_compiled=6.0, amax_compiled=3.0),
        row("b", ours=4.0, seed_eager=16.0, amax_eager=64.0, seed_compiled=3.0, amax_compiled=9.0),
    ]
    found = summary.means(rows)
    to_copy = mean_of(found, "ours / copy")
    assert to_copy["mean"] == pytest.approx(2.0)
    assert (to_copy["worst"], to_copy["worst_case"]) == (4.0, "b")
    # The best peer of each row: 3 / 1 by amax, then 3 / 4 by seed.
    compiled = mean_of(found, "best compiled peer / ours")
    assert compiled["mean"] == pytest.approx((3.0 * 0.75) ** 0.5)
    assert (compiled["worst"], compiled["worst_case"]) == (0.75, "b")
    assert mean_of(found, "best eager peer / ours")["mean"] == pytest.approx(4.0)


def test_dtypes_are_never_put_in_one_mean():
    rows = [row("a", ours=2.0, seed_eager=4.0), row("b", dtype="bfloat16", ours=8.0)]
    found = summary.means(rows)
    assert mean_of(found, "ours / copy")["mean"] == pytest.approx(2.0)
    assert mean_of(found, "ours / copy", dtype="bfloat16")["mean"] == pytest.approx(8.0)


def test_a_quantity_says_how_many_rows_have_it_and_is_left_out_if_none_does():
    found = summary.means([row("a", kernels=1.5), row("b")])
    kernels = mean_of(found, "our kernels / copy")
    assert (kernels["mean"], kernels["rows"], kernels["of_rows"]) == (pytest.approx(1.5), 1, 2)
    assert not [each for each in found if each["quantity"] == "best compiled peer / ours"]


def test_the_best_peer_is_looked_for_among_its_kind():
    one = row("a", ours=2.0, seed_eager=8.0, timm_eager=6.0, seed_compiled=5.0)
    assert summary.best_peer(one, "both", "eager") == ("timm_eager", 3.0)
    assert summary.best_peer(one, "both", "compiled") == ("seed_compiled", 2.5)
    assert summary.best_peer(row("a"), "both", "compiled") is None


def refused_row(case):
    wrong = {"variant": "ours", "value": "gradient of x", "error": 0.5, "allowed": 1e-4}
    return {**row(case), "status": "refused", "disagreements": [wrong]}


def test_no_speed_up_where_any_case_is_refused():
    records = [row("a", seed_eager=8.0), refused_row("b")]
    results = {"command": "c", "records": records, **summary.summarise_records(records)}
    assert results["summary"] == []
    assert [each["case"] for each in results["refused"]] == ["b"]
    text = page(results)
    assert "No speed-up is printed" in text
    assert "| b | ours | gradient of x | 5.0e-01 | 0.0001 |" in text
    assert "peer / ours" not in text


def test_the_page_marks_what_was_disturbed_and_judges_aims():
    quiet, busy = row("a", ours=2.0, seed_compiled=5.0), row("b", ours=2.0, seed_compiled=4.0)
    for timed in busy["passes"].values():
        timed["disturbed"] = True
    records = [quiet, busy]
    text = page({"command": "c", "records": records, **summary.summarise_records(records)})
    assert "| ours / copy, forward, float32 | 2.00 | ≤ 2.1: met | 2.00 at a | 2, 1† |" in text
    assert "| best compiled peer / ours, forward + backward, float32 | 2.24 | ≥ 2.5: missed" in text
    assert "| b | 1.000 | 2.00 | 4.00 | 2.00 |  | 9† | 0.01 |" in text
    assert "- our kernels: there are none (every row)" in text


def test_overheads_are_percent_over_plain():
    timed = {
        "times": {"ours": {"seconds": quartiles(0.11), "to_plain": [1.0, 1.1, 1.25]}},
        "rounds": 9,
        "others": None,
        "disturbed": False,
    }
    record = {
        "kind": "network",
        "network": "resnet50",
        "batch": 8,
        "passes": {"inference, eager": timed},
    }
    (found,) = summary.overheads([record])
    assert found["percent"] == pytest.approx([0.0, 10.0, 25.0])
    assert found["milliseconds"] == pytest.approx(110.0)


def growth_record(*seconds_and_bytes):
    points = [
        {
            "shape": [1, 1, size],
            "bytes": size,
            "disturbed": False,
            "times": {
                call: {"seconds": quartiles(factor * seconds)}
                for call, factor in (("copy", 1), ("forward", 2), ("both", 6))
            },
        }
        for seconds, size in seconds_and_bytes
    ]
    return {"axis": "N", "layout": "contiguous", "points": points}


def test_growth_is_nanoseconds_per_byte():
    found = {
        each["call"]: each for each in summary.growth(growth_record((1e-6, 1000), (4e-6, 2000)))
    }
    assert found["forward"]["ns_per_byte"] == pytest.approx([2.0, 4.0])
    assert found["both"]["spread"] == pytest.approx(2.0)


@pytest.mark.parametrize(("seconds", "flat"), [(1.9e-6, True), (2.1e-6, False)])
def test_growth_is_flat_within_a_factor_of_two(seconds, flat):
    assert [each["flat"] for each in summary.growth(growth_record((1e-6, 1), (seconds, 1)))] == [
        flat
    ] * 3
