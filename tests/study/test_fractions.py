"""Trials on shares of the training samples: nested, the same for all variants, told apart."""

import pytest
from results_fixture import build_results

from whatwhere.study.build import load_data, part_of
from whatwhere.study.report import figures, tables
from whatwhere.study.report.page import render
from whatwhere.study.settings import StudyError, StudySettings, parse_variants
from whatwhere.study.trial import Trial, run_trial


def test_shares_are_nested_and_of_every_class(settings):
    data = load_data(settings.data)
    rows = {}
    for share in (0.1, 0.25, 0.5):
        part = part_of(data, share, seed=3)
        rows[share] = set(part.train._rows.tolist())
        assert len(part.train) == round(share * len(data.train))
        assert part.train.labels.bincount().min() >= len(part.train) // 2 - 1
        assert part.test is data.test
        assert part.val is data.val
    assert rows[0.1] < rows[0.25] < rows[0.5]
    assert set(part_of(data, 0.5, seed=4).train._rows.tolist()) != rows[0.5]
    assert part_of(data, 1.0, seed=3) is data


def test_samples_of_a_share_are_those_of_the_whole(settings):
    data = load_data(settings.data)
    train = part_of(data, 0.25, seed=0).train
    where = {row: index for index, row in enumerate(data.train._rows.tolist())}
    for index, row in enumerate(train._rows.tolist()):
        sample, label = data.train[where[row]]
        assert train[index][1] == label
        assert (train[index][0] == sample).all()


def test_a_share_too_small_still_has_every_class(settings):
    part = part_of(load_data(settings.data), 1e-6, seed=0)
    assert part.train.labels.tolist() in ([0, 1], [1, 0])


def test_trials_of_a_share_have_a_place_and_a_record_of_their_own(tmp_path, settings):
    [_, variant] = parse_variants(["cbam"])
    trial = Trial(tmp_path, settings, variant, 0, fraction=0.5)
    assert trial.name == "cbam-part0.5-seed0"
    run_trial(trial)
    record = trial.result()
    assert record["status"] == "finished", record["reason"]
    assert record["fraction"] == 0.5
    assert not Trial(tmp_path, settings, variant, 0).done()


@pytest.mark.parametrize("fraction", [0, 1, 1.5, -0.1, float("nan")])
def test_shares_that_are_none_are_refused(settings, fraction):
    with pytest.raises(StudyError, match="expected --fractions above 0 and below 1"):
        StudySettings(data=settings.data, fractions=(0.5, fraction))


def with_parts(results):
    results["parts"] = [
        {**trial, "fraction": share, "test": {**trial["test"], "accuracy": share}}
        for share in (0.3, 0.1)
        for trial in results["trials"]
    ]
    return results


def test_the_report_shows_accuracy_by_share(tmp_path):
    results = with_parts(build_results())
    rows = tables.fraction_rows(results)
    assert [row["share"] for row in rows] == ["10%", "30%", "100%"]
    assert [row["samples"] for row in rows] == ["350", "1\u202f050", "3\u202f500"]
    assert rows[0]["accuracies"] == ["10.0 ± 0.0"] * 4
    page = render(results, tmp_path)
    assert "With fewer training samples" in page
    assert figures.fractions(results) in page


def test_shares_change_neither_verdict_nor_variants(tmp_path):
    plain, parted = build_results(), with_parts(build_results())
    assert "With fewer" not in render(plain, tmp_path)
    first, second = (render(each, tmp_path).partition("<section")[0] for each in (plain, parted))
    assert first == second
