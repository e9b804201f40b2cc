"""--until-sure: by the width alone, within the budget, and resumed like all else."""

import numpy as np
import pytest
from results_fixture import build_results, fail
from rich.console import Console

from whatwhere.files import write_json
from whatwhere.study import rounds
from whatwhere.study.settings import StudyError, StudySettings
from whatwhere.study.statistics import compare_variants, paired
from whatwhere.study.stopping import half_width, progress
from whatwhere.study.trial import empty_record

ROWS = [
    {"name": name, "role": role, "gate": None, "options": {}, "width": 1.0}
    for name, role in (("none", "baseline"), ("cbam", "attention"))
]
PLAN = {"variants": ROWS, "fingerprint": "of data"}
SPREAD = [0.2, -0.1, 0.3, 0.0, -0.2, 0.1, 0.2, -0.3]


def study_of(differences, *, gain=0.0):
    """Comparisons of one attention variant, which differs from the plain network by so much."""
    accuracies = {"none": [90.0] * len(differences), "cbam": [90.0 + gain + d for d in differences]}
    return compare_variants(
        {
            "settings": {"until_sure": 1.0},
            "variants": ROWS,
            "trials": [
                {
                    "variant": name,
                    "seed": seed,
                    "status": "finished",
                    "test": {"accuracy": value / 100},
                }
                for name, values in accuracies.items()
                for seed, value in enumerate(values)
            ],
        }
    )


def after(differences, *, gain=0.0, until_sure=1.0, max_seeds=20):
    found = study_of(differences, gain=gain)
    return progress(found, seeds=len(differences), until_sure=until_sure, max_seeds=max_seeds)


@pytest.mark.parametrize("gain", [0.0, 0.5, -3.0])
@pytest.mark.parametrize("seeds", [3, 5, 8])
@pytest.mark.parametrize("until_sure", [0.1, 0.3, 5.0])
def test_what_the_intervals_show_has_no_say(gain, seeds, until_sure):
    with_gain = after(SPREAD[:seeds], gain=gain, until_sure=until_sure)
    without = after(SPREAD[:seeds], until_sure=until_sure)
    assert (with_gain.reason, with_gain.next_seeds) == (without.reason, without.next_seeds)


def test_a_narrow_interval_of_enough_pairs_is_sure():
    found = after(SPREAD[:5], until_sure=0.5)
    expected = half_width(paired(SPREAD[:5], confidence=0.97))
    assert found.half_widths == {"cbam": pytest.approx(expected)}
    assert expected < 0.5
    assert (found.reason, found.next_seeds, found.pairs) == ("sure", None, {"cbam": 5})


def test_of_few_pairs_none_is_sure_however_narrow():
    found = after([0.1, 0.1001, 0.1002], until_sure=5.0)
    assert (found.reason, found.next_seeds) == (None, 5)


def test_the_next_round_goes_as_far_as_the_spread_says():
    # deviation 0.2074: t(0.985, n - 1) * 0.2074 / sqrt(n) is 0.254 for 6 pairs and 0.222 for 7.
    assert after(SPREAD[:5], until_sure=0.23).next_seeds == 7
    assert after(SPREAD[:5], until_sure=0.01, max_seeds=100).next_seeds == 10  # at most twice
    assert after(SPREAD[:5], until_sure=0.01, max_seeds=6).next_seeds == 6  # nor over the budget
    assert after([0.1, 0.1, 0.1]).next_seeds == 5  # no interval: the spread is not known


def test_the_budget_ends_it():
    found = after(SPREAD, until_sure=0.01, max_seeds=8)
    assert (found.reason, found.next_seeds) == ("budget", None)
    assert after([0.1] * 8, max_seeds=8).half_widths == {"cbam": None}


def test_a_variant_that_never_finishes_is_not_waited_for():
    results = build_results(variants=("plain", "cbam", "se"), seeds=tuple(range(8)))
    results["settings"]["until_sure"] = 5.0
    for seed in range(8):
        fail(results, "se", seed)
    found = progress(compare_variants(results), seeds=8, until_sure=5.0, max_seeds=20)
    assert (found.reason, set(found.half_widths)) == ("sure", {"cbam"})
    for seed in range(8):
        fail(results, "cbam", seed)
    found = progress(compare_variants(results), seeds=8, until_sure=5.0, max_seeds=20)
    assert (found.reason, found.next_seeds) == ("nothing to compare", None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_seeds": 9}, "expected --until-sure with --max-seeds"),
        ({"until_sure": 0.0}, "--until-sure in points above 0, got 0.0"),
        ({"until_sure": float("nan")}, "--until-sure in points above 0, got nan"),
        ({"until_sure": 1.0, "max_seeds": 4}, "--max-seeds of at least 5, got 4"),
        ({"until_sure": 1.0, "seeds": 30}, "--max-seeds of at least 30, got 20"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, options, message):
    with pytest.raises(StudyError, match=message):
        StudySettings(data=settings.data, **options)


@pytest.fixture
def made_up_trials(monkeypatch):
    """Trials that take no time: the record is that of a made-up accuracy, failing where told."""
    calls = []

    def run_trials(trials, engine, console):
        calls.append([trial.name for trial in trials])
        for trial in trials:
            if trial.done():
                continue
            value = 90.0 + (SPREAD * 3)[trial.seed] * (trial.variant.name == "cbam")
            failed = trial.seed == 1 and trial.variant.name == "cbam"
            record = empty_record(trial, status="failed" if failed else "finished")
            record["seconds"] = 0.0
            trial.folder.mkdir(parents=True, exist_ok=True)
            accuracy = None if failed else {"accuracy": value / 100}
            write_json(trial.folder / "result.json", {**record, "test": accuracy})

    monkeypatch.setattr(rounds, "run_trials", run_trials)
    return calls


def test_rounds_add_seeds_and_pass_the_same_way_again(settings, tmp_path, made_up_trials):
    asked = StudySettings(data=settings.data, seeds=3, until_sure=0.2, max_seeds=20)
    console = Console(quiet=True)
    trials, stopped = rounds.run_rounds(asked, PLAN, tmp_path, str, console)
    assert stopped.reason == "sure"
    assert stopped.seeds == len(trials) / 2 > 6
    assert stopped.pairs == {"cbam": stopped.seeds - 1}  # seed 1 failed
    assert [len(names) for names in made_up_trials][:2] == [6, 6]  # 3 seeds, then 6, of 2 variants
    first = list(made_up_trials)
    assert sum(map(len, first)) == len({name for names in first for name in names})
    made_up_trials.clear()
    again, stopped_again = rounds.run_rounds(asked, PLAN, tmp_path, str, console)
    assert made_up_trials == first
    assert (stopped_again, [t.name for t in again]) == (stopped, [t.name for t in trials])


def test_rounds_stay_within_the_budget(settings, tmp_path, made_up_trials):
    asked = StudySettings(data=settings.data, seeds=3, until_sure=0.01, max_seeds=7)
    trials, stopped = rounds.run_rounds(asked, PLAN, tmp_path, str, Console(quiet=True))
    assert (stopped.reason, stopped.seeds, len(trials)) == ("budget", 7, 14)


def test_without_until_sure_the_seeds_are_fixed(settings, tmp_path, made_up_trials):
    asked = StudySettings(data=settings.data, seeds=4)
    trials, stopped = rounds.run_rounds(asked, PLAN, tmp_path, str, Console(quiet=True))
    assert (stopped, len(trials), len(made_up_trials)) == (None, 8, 1)


def test_stopping_does_not_look_at_the_mean_over_many_studies():
    # The means of studies that stopped late and early scatter around the same truth.
    random = np.random.default_rng(3)
    early, late = [], []
    for _ in range(400):
        draws = random.normal(0.0, 1.0, 12).tolist()
        found = progress(study_of(draws[:6]), seeds=6, until_sure=1.0, max_seeds=12)
        (early if found.reason == "sure" else late).append(np.mean(draws[:6]))
    for means in (early, late):
        assert len(means) > 40
        assert abs(np.mean(means)) < 4 / (6 * len(means)) ** 0.5
