"""The page: that it holds together by itself, says what was found, and survives odd studies."""

import base64
import json
from html.parser import HTMLParser

import pytest
from matplotlib.figure import Figure
from results_fixture import build_results, fail, set_accuracies, write_results

from whatwhere.study.report import write_report
from whatwhere.study.report.figures import COLOURS
from whatwhere.study.verdict import verdict

VOID = {"meta", "link", "br", "img"}


class Page(HTMLParser):
    """What a browser would make of the page: text, references, and whether the tags match."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.references, self.words = [], [], [], []
        self.images = {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        attributes = dict(attrs)
        self.references += [attributes[name] for name in ("src", "href") if name in attributes]
        if tag == "img":
            self.images[attributes["alt"]] = attributes["src"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def svg(self, alt):
        [source] = [src for name, src in self.images.items() if name.startswith(alt)]
        assert source.startswith("data:image/svg+xml;base64,")
        return base64.b64decode(source.split(",")[1]).decode()


def page_of(tmp_path, results):
    path = write_report(write_results(tmp_path / "run", results))
    assert path == tmp_path / "run" / "report.html"
    return Page(path.read_text(encoding="utf-8"))


def test_the_page_says_the_verdict_and_asks_nothing_of_the_network(tmp_path):
    results = build_results()
    page = page_of(tmp_path, results)
    found = verdict(results)
    assert found.headline in page.text
    assert all(sentence in page.text for sentence in found.sentences)
    assert all(reference.startswith("data:") for reference in page.references)
    assert {"script", "iframe", "object", "base"}.isdisjoint(page.tags)
    assert "url(" not in (tmp_path / "run" / "report.html").read_text()
    assert sorted(file.name for file in (tmp_path / "run").iterdir()) == [
        "report.html",
        "results.json",
    ]


def test_the_table_holds_the_numbers(tmp_path):
    results = build_results()
    set_accuracies(results, "plain", [90.0, 91.0, 92.0])
    set_accuracies(results, "cbam", [91.0, 93.0, 95.0])
    set_accuracies(results, "se", [90.5, 90.9, 92.4])
    set_accuracies(results, "wider", [90.0, 90.0, 94.0])
    text = page_of(tmp_path, results).text
    for expected in (
        "93.0 ± 2.0 +2.0 −0.5 to +4.5 +1.7 −1.2 to +4.5 8 177\u202f430 17.11 M 3.49",
        "cbam plain +2.0 −0.5 to +4.5 3 0.074 0.15 of 2 no 4.6 6 se plain",
        "3 0.74 – – 5.0 167 cbam wider",
        "×1.09 1.07 to 1.12",
        "whatwhere compare digits --attention cbam",
        "x86_64, made up",
        "train 3500, val 500, test 1000",
    ):
        assert " ".join(expected.split()) in text


def test_what_is_shown_is_filled_and_what_is_not_is_hollow(tmp_path):
    results = build_results(variants=("plain", "cbam", "se"))
    for name, values in {
        "plain": [90.0, 91.0, 92.0],
        "cbam": [92.0, 93.1, 94.0],
        "se": [91.0, 90.0, 92.3],
    }.items():
        set_accuracies(results, name, values)
    page = page_of(tmp_path, results)
    assert "of 2 yes" in page.text
    assert "of 2 no" in page.text
    svg = page.svg("Differences with their intervals")
    cbam, se = COLOURS[:2]
    assert f"fill: {cbam.lower()}; stroke: {cbam.lower()}" in svg
    assert f"fill: {se.lower()}; stroke: {se.lower()}" not in svg
    assert f"fill: #ffffff; stroke: {se.lower()}" in svg


def test_gates_are_warned_of_and_counted_over_seeds(tmp_path):
    results = build_results(variants=("plain", "cbam"), depth=1)
    for trial, state in zip(results["trials"][3:], ("dead", "live", "live"), strict=True):
        trial["gates"][0].update(state=state, mean=0.25 if state == "dead" else 1.0)
        trial["gates"][1].update(state="live")
    text = page_of(tmp_path, results).text
    assert "dead 1 of 6 trained gates: almost 0" in text
    assert "layer1.0.attention.what what 0.750" in text
    assert "live 2 of 3 dead 1 of 3" in text


def test_hits_only_where_the_truth_is_known(tmp_path):
    known = page_of(tmp_path, build_results())
    assert "Do they point at what matters?" in known.text
    unknown = page_of(tmp_path, build_results(truth=False))
    assert "Do they point at what matters?" not in unknown.text
    assert "points right" not in unknown.text


def test_hostile_names_stay_text(tmp_path):
    hostile = "<script>alert('x')</script>"
    results = build_results()
    results["name"] = results["data"]["name"] = results["command"] = hostile
    results["data"]["classes"][0] = hostile
    results["data"]["skipped"] = [{"path": f"train/{hostile}.png", "reason": hostile}]
    results["settings"]["backbone"] = hostile
    for variant in results["variants"]:
        variant["description"] = hostile
    for entry in results["variants"] + results["trials"]:
        key = "name" if "name" in entry else "variant"
        entry[key] = hostile + r"$\frac^$" if entry[key] == "cbam" else entry[key]
    fail(results, "se", 0, reason=hostile)
    page = page_of(tmp_path, results)
    assert "script" not in page.tags
    assert page.text.count(hostile) > 8
    assert "<script" not in page.svg("Test accuracy against forward time")


def test_pictures_are_embedded_from_the_first_finished_seed(tmp_path):
    results = build_results()
    run = tmp_path / "run"
    (run / "pictures").mkdir(parents=True)
    for trial in results["trials"]:
        if trial["variant"] in ("plain", "cbam", "se"):
            trial["picture"] = f"pictures/{trial['id']}.png"
    for name in ("cbam-1", "cbam-2", "plain-0"):
        Figure(figsize=(1, 1)).savefig(run / "pictures" / f"{name}.png", dpi=10 + len(name))
    fail(results, "cbam", 0)
    page = page_of(tmp_path, results)
    encoded = page.images["Gates of cbam on test samples"].split(",")[1]
    assert base64.b64decode(encoded) == (run / "pictures" / "cbam-1.png").read_bytes()
    assert "The picture pictures/se-0.png is missing" in page.text
    assert "Gates of plain on test samples" not in page.images


def degenerate():
    def nothing_finished():
        results = build_results()
        for trial in list(results["trials"]):
            fail(results, trial["variant"], trial["seed"], status="failed", reason="no memory")
        return results

    def no_trials():
        return {**build_results(), "trials": []}

    def unmeasured():
        results = build_results()
        for variant in results["variants"]:
            variant.update(latency_ms=None, latency_ratio=None, macs=None, training_memory_mb=None)
        return results

    def no_epochs():
        results = fail(build_results(), "cbam", 1, status="failed", reason=None)
        for trial in results["trials"]:
            trial["epochs"] = []
        return results

    def perfect():
        results = build_results()
        for variant in results["variants"]:
            set_accuracies(results, variant["name"], [100.0, 100.0, 100.0])
        return results

    return {
        "nothing finished": (nothing_finished(), "No trial has finished"),
        "no trials": (no_trials(), "12 of 12 trials have not been run."),
        "one variant": (build_results(variants=("plain",)), "No attention variant was studied."),
        "no baseline": (build_results(variants=("cbam",)), "No finished comparison for cbam."),
        "one seed": (build_results(seeds=(0,)), "no interval"),
        "no truth": (build_results(truth=False), "What the gates do"),
        "no control": (build_results(variants=("plain", "cbam")), "by what isn't settled"),
        "one diverged": (fail(build_results(), "se", 2), "the loss was NaN in epoch 3"),
        "fast": (build_results(fast=True), "A first look (--fast), not a verdict"),
        "unmeasured": (unmeasured(), "Every seed in every variant"),
        "no epochs": (no_epochs(), "not given"),
        "perfect": (perfect(), "equal differences give no interval"),
        "many gates": (build_results(depth=30), "60 gates, 3 finished seeds"),
        "many variants": (build_results(seeds=tuple(range(9))), "9 seeds"),
    }


@pytest.mark.parametrize("name", degenerate())
def test_odd_studies_give_a_sensible_page(tmp_path, name):
    results, words = degenerate()[name]
    page = page_of(tmp_path, results)
    assert words in page.text
    assert verdict(results).headline in page.text
    assert "nan" not in page.text.lower().replace("the loss was nan", "")
    assert "None" not in page.text


def test_pages_of_the_same_results_are_the_same(tmp_path):
    run = write_results(tmp_path / "run", build_results())
    first = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == first


def test_a_run_that_cannot_be_read_is_refused_and_the_old_page_stays(tmp_path):
    with pytest.raises(ValueError, match=r"expected .*results\.json, which a study writes"):
        write_report(tmp_path)
    run = write_results(tmp_path, build_results())
    before = write_report(run).read_bytes()
    (run / "results.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match="to be JSON"):
        write_report(run)
    (run / "results.json").write_text(json.dumps([1]), encoding="utf-8")
    with pytest.raises(ValueError, match=r"to have whatwhere, .*, variants, trials; it has not"):
        write_report(run)
    results = build_results()
    del results["settings"]
    with pytest.raises(ValueError, match="to have settings; it has not"):
        write_report(write_results(run, results))
    assert (run / "report.html").read_bytes() == before
