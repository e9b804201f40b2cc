"""The page as a visitor has it: in a headless Chromium, from a server that is watched."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import gradio  # noqa: F401  # its first import ever writes hash_seed.txt into its own package
import httpx
import numpy as np
import pytest
import torch
from PIL import Image

from whatwhere.checkpoints import load
from whatwhere.inputs import preparation_of
from whatwhere.look import gates_in
from whatwhere.serve.answers import neutral, probabilities, switched_off
from whatwhere.serve.uploads import take
from whatwhere.serve.words import in_words

playwright = pytest.importorskip("playwright.sync_api")

pytestmark = pytest.mark.xdist_group("page")
REPOSITORY = Path(__file__).parents[2]
CLASSES = ("a_b", "<i>", "c")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
)
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PATIENCE = 60_000  # ms: as long as a loaded machine may need


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        own = Path(started.chromium.executable_path)
        found = str(own) if own.exists() else next(filter(None, map(shutil.which, NAMES)), None)
        if found is None:
            pytest.skip("no browser: neither Playwright's own nor " + ", ".join(NAMES))
        playwright.expect.set_options(timeout=PATIENCE)
        opened = started.chromium.launch(executable_path=found, args=list(FLAGS))
        yield opened
        opened.close()


class Server:
    """The watched server's process, what it said and what it did."""

    def __init__(self, path, folder, *options):
        self.record, self.said = folder / "record", folder / "said"
        temporary = folder / "temporary"
        temporary.mkdir()
        self.temporary, self.caches = temporary, folder / "caches"
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(REPOSITORY / "src"), str(REPOSITORY)]),
            "PYTHONDONTWRITEBYTECODE": "1",
            "TMPDIR": str(temporary),
            "MPLCONFIGDIR": str(folder / "caches"),  # what libraries keep for all programs
            "TORCHINDUCTOR_CACHE_DIR": str(folder / "caches"),
            "NUMBA_CACHE_DIR": str(folder / "caches"),  # of our kernels' object code
            "GRADIO_SHARE": "True",  # what must not count
            "GRADIO_ALLOWED_PATHS": "/",
        }
        with self.said.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "tests/serve/watched.py", self.record, path, *options],
                cwd=REPOSITORY,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        while "Ctrl-C" not in self.said.read_text():
            assert self.process.poll() is None, self.said.read_text()
            time.sleep(0.05)
        self.address = re.search(r"http://\S+", self.said.read_text())[0]

    def told(self, *events):
        lines = map(json.loads, self.record.read_text().splitlines())
        return [subject for event, subject in lines if event in events]

    def end(self):
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)


@pytest.fixture(scope="module")
def server(run, tmp_path_factory):
    started = Server(run, tmp_path_factory.mktemp("server"))
    yield started
    if started.process.poll() is None:
        started.end()


@pytest.fixture
def page(browser, server):
    opened = browser.new_page(viewport={"width": 1400, "height": 1000})
    opened.set_default_timeout(PATIENCE)
    asked, complaints = [], []
    opened.on("request", lambda request: asked.append(request.url))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on(
        "console",
        lambda line: complaints.append(line.text) if line.type == "error" else None,
    )
    opened.goto(server.address)
    opened.locator("#picture img").wait_for()
    yield opened
    opened.close()
    outside = [url for url in asked if not url.startswith((server.address, "data:", "blob:"))]
    assert outside == []
    assert complaints == []


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "mine.png"
    Image.fromarray(np.random.default_rng(5).integers(0, 255, (20, 30, 3), np.uint8)).save(path)
    return path


@pytest.fixture
def expected(run, picture):
    """What the library says of the picture by itself, with gates of these names off."""
    checkpoint = run / "trials" / "cbam-seed0" / "model.safetensors"
    model = load(checkpoint).eval()
    x = take(picture, preparation_of(checkpoint)).x
    trained = probabilities(model, x)

    def words(*names, values=None):
        off = neutral(model, names) if values is None else values
        with switched_off(model, off):
            now = probabilities(model, x)
        text = in_words(CLASSES, trained, now if off else None)
        return re.sub(r"\*\*|\\", "", text)

    words.gates = list(gates_in(model))
    return words


def says(page, text):
    page.locator("#sentence", has_text=text).wait_for()


def drop(page, path):
    page.locator("#upload input[type=file]").set_input_files(path)


def test_an_image_is_answered_and_a_gate_switched_off(page, picture, expected, tmp_path):
    drop(page, picture)
    page.locator("#said", has_text="mine.png").wait_for()
    says(page, expected())
    before = page.locator("#picture img").get_attribute("src")
    page.locator("#off label", has_text="where 2").click()
    off = next(name for name in expected.gates if "stages.1" in name and "spatial" in name)
    assert expected(off) != expected()
    says(page, expected(off))
    page.locator("#now", has_text="%").wait_for()
    page.locator("#off label", has_text="what 3").click()
    other = next(name for name in expected.gates if "stages.2" in name and "channel" in name)
    says(page, expected(off, other))
    page.locator("#off label", has_text="where 2").click()
    page.locator("#off label", has_text="what 3").click()
    says(page, expected())
    page.locator("#depth input[type=number]").fill("3")
    page.locator("#depth input[type=number]").press("Enter")
    page.locator("#depth", has_text="Depth 3 of 3: stages.2.0.bn2.attention").wait_for()
    playwright.expect(page.locator("#picture img")).not_to_have_attribute("src", before)
    page.screenshot(path=tmp_path / "page.png", full_page=True)
    with Image.open(tmp_path / "page.png") as shot:
        assert len(shot.convert("RGB").getcolors(2**24)) > 100


def test_a_gate_gives_its_mean_over_the_test_samples(page, picture, expected, run):
    checkpoint = run / "trials" / "cbam-seed0" / "model.safetensors"
    model = load(checkpoint).eval()
    preparation = preparation_of(checkpoint)
    with np.load(run.with_name("bars.npz")) as arrays:
        samples = torch.from_numpy(arrays["test_images"])[:, None] / 255
    x = torch.stack([preparation.normalised(sample) for sample in samples])
    name = next(name for name in expected.gates if "stages.0" in name and "channel" in name)
    seen = []
    gate = gates_in(model)[name]
    handle = gate.activation.register_forward_hook(lambda *call: seen.append(call[-1].detach()))
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        model(x)
    handle.remove()
    drop(page, picture)
    says(page, expected())
    page.locator("#off label", has_text="what 1").click()
    page.locator("#stand-in label", has_text="mean").click()
    says(page, expected(name, values={name: seen[0].mean(0)}))


def test_a_bad_file_is_told_and_what_was_shown_stays(page, picture, expected, tmp_path, server):
    drop(page, picture)
    says(page, expected())
    bad = tmp_path / "bad_*.png"
    bad.write_text("no picture at all")
    drop(page, bad)
    told = page.locator("#said", has_text="was not taken")
    told.wait_for()
    assert "its content is none of these" in told.inner_text()
    says(page, expected())
    assert "Traceback" not in page.locator("body").inner_text()
    assert "Traceback" not in server.said.read_text()


def test_variants_and_the_study_are_there(page):
    page.locator("#examples button").nth(1).click()
    page.locator("#said", has_text="test sample of class 2").wait_for()
    page.get_by_role("tab", name="Variants side by side").click()
    for variant in ("plain", "cbam"):
        page.get_by_role("tabpanel").get_by_text(variant, exact=True).wait_for()
    playwright.expect(page.get_by_role("tabpanel").locator("img:visible")).to_have_count(2)
    page.get_by_role("tab", name="The study").click()
    report = page.frame_locator("iframe[title=report]")
    report.get_by_text("Does attention help?").wait_for()


def test_it_keeps_to_itself_and_ends_cleanly(page, server, picture):
    config = httpx.get(f"{server.address}config").json()
    function = next(
        each["id"] for each in config["dependencies"] if each["targets"][0][1] == "upload"
    )
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        address = f"http://127.0.0.1:{listening.getsockname()[1]}/picture.png"
        file = {"path": address, "meta": {"_type": "gradio.FileData"}}
        asked = {"data": [file], "fn_index": function, "session_hash": "test"}
        httpx.post(f"{server.address}gradio_api/queue/join", json=asked)
        events = httpx.get(f"{server.address}gradio_api/queue/data?session_hash=test", timeout=60)
        assert "which is not fetched" in events.text
        with pytest.raises(BlockingIOError):
            listening.accept()
    secret = httpx.get(f"{server.address}gradio_api/file=/etc/passwd")
    assert secret.status_code == 403
    page.close()
    assert server.end() == 0
    port = server.address.rsplit(":", 1)[1].strip("/")
    assert set(server.told("contact", "bind")) == {f"('127.0.0.1', {port})"}
    assert set(server.told("name")) <= {"127.0.0.1"}
    written = {Path(path) for path in server.told("write", "os.mkdir")} - {Path("/dev/null")}
    within = {
        path
        for path in written
        for own in (server.temporary, server.caches)
        if own in [path, *path.parents]
    }
    assert written - within == set()
    assert list(server.temporary.iterdir()) == []
