"""Shards in training: every sample once whoever reads, from servers, resumed at the very sample."""

import json
import subprocess
import sys
import threading
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from shards import arrow_shards, numbered_shards, numbers_of, parquet_shards, tar_shards

from whatwhere.study import loaders
from whatwhere.study.data import DataError, DataSettings, load
from whatwhere.study.data.stream import order as order_module
from whatwhere.study.data.stream import samples as samples_module
from whatwhere.study.data.stream import shards as shards_module
from whatwhere.study.data.stream import tar as tar_module
from whatwhere.study.settings import StudySettings, parse_variants
from whatwhere.study.trial import Trial, run_trial


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


class Server:
    """Files of a folder on the loopback; counts the bytes it sends, and can fail."""

    def __init__(self, folder: Path, *, ranges: bool = True) -> None:
        self.sent = 0
        self.failures = 0
        outer = self

        class Handler(SimpleHTTPRequestHandler):
            def __init__(self, *arguments):
                super().__init__(*arguments, directory=str(folder))

            def log_message(self, *arguments):
                pass

            def do_GET(self):
                wanted = self.headers.get("Range")
                if wanted is None or not ranges or Path(self.translate_path(self.path)).is_dir():
                    super().do_GET()
                    return
                if outer.failures:
                    outer.failures -= 1
                    self.send_error(503)
                    return
                content = Path(self.translate_path(self.path)).read_bytes()
                first, last = wanted.removeprefix("bytes=").split("-")
                part = content[int(first) : int(last) + 1]
                outer.sent += len(part)
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
                self.send_header("Content-Length", str(len(part)))
                self.end_headers()
                self.wfile.write(part)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def serve():
    servers = []

    def one(folder, **options):
        servers.append(Server(folder, **options))
        return servers[-1]

    yield one
    for server in servers:
        server.close()


def settings(source, **options) -> StudySettings:
    data = DataSettings(source=str(source), **options)
    return StudySettings(data=data, batch_size=8, epochs=2)


def epoch_of(data, loader) -> list[list[int]]:
    return [numbers_of(data, x) for x, _ in loader]


def training(data, study, *, epoch=0, seed=0, rank=0, processes=1):
    loader = loaders.training_loader(data.train, study, seed=seed, rank=rank, processes=processes)
    loader.batches.sampler.set_epoch(epoch)
    return loader


@pytest.mark.parametrize("counts", [[100], [3, 50, 1, 46]], ids=["one shard", "uneven shards"])
@pytest.mark.parametrize("workers", [0, 2])
def test_every_sample_once_an_epoch_for_any_number_of_readers(
    tmp_path, monkeypatch, counts, workers
):
    monkeypatch.setattr(tar_module, "BLOCK", 5000)
    monkeypatch.setattr(loaders, "_loader_processes", lambda: workers)
    study = settings(numbered_shards(tmp_path, counts) / "*.tar")
    data = load(study.data)
    assert data.train.layout.blocks.max() >= 10
    mine = sorted(numbers_of(data, x)[0] for x, _ in data.train)
    alone = epoch_of(data, training(data, study))
    taken = sorted(number for batch in alone for number in batch)
    assert len(taken) == len(set(taken)) == 8 * (len(mine) // 8)  # the last short batch is dropped
    assert set(taken) <= set(mine)
    for processes in (2, 3):
        shares = [
            epoch_of(data, training(data, study, rank=rank, processes=processes))
            for rank in range(processes)
        ]
        assert {len(share) for share in shares} == {len(alone)}  # as many steps on every rank
        together = [sorted(sum(parts, [])) for parts in zip(*shares, strict=True)]  # noqa: RUF017
        assert together == [sorted(batch) for batch in alone]


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_evaluation_is_of_every_sample_once(tmp_path, monkeypatch, processes):
    monkeypatch.setattr(tar_module, "BLOCK", 5000)
    study = settings(numbered_shards(tmp_path, [60, 47]) / "*.tar", test_fraction=0.5)
    data = load(study.data)
    shares = [
        epoch_of(data, loaders.evaluation_loader(data.test, study, rank=rank, processes=processes))
        for rank in range(processes)
    ]
    assert len({len(share) for share in shares}) == 1
    every = [number for share in shares for batch in share for number in batch]
    assert sorted(every) == sorted(numbers_of(data, x)[0] for x, _ in data.test)


def test_an_epoch_goes_on_at_the_very_sample(tmp_path, monkeypatch):
    study = settings(numbered_shards(tmp_path, [40, 30]) / "*.tar")
    data = load(study.data)
    whole = [(x, y) for x, y in training(data, study, epoch=1, seed=2)]
    stopped = training(data, study, epoch=1, seed=2)
    for _, _batch in zip(range(2), stopped, strict=False):
        pass
    state = stopped.state_dict()
    reads = []
    decode = samples_module.read_sample
    monkeypatch.setattr(
        samples_module,
        "read_sample",
        lambda content, side: reads.append(content) or decode(content, side),
    )
    resumed = training(data, study, epoch=1, seed=2)
    resumed.load_state_dict(state)
    rest = list(resumed)
    assert len(rest) == len(whole) - 2
    for (x, y), (again, label) in zip(whole[2:], rest, strict=True):
        assert x.equal(again)
        assert y.equal(label)
    assert len(reads) == 8 * len(rest)  # those before were not decoded again


def test_variants_of_a_seed_see_the_same(tmp_path):
    study = settings(numbered_shards(tmp_path, [40, 30]) / "*.tar")
    data = load(study.data)
    first = epoch_of(data, training(data, study, seed=1))
    assert first == epoch_of(load(study.data), training(load(study.data), study, seed=1))
    assert first != epoch_of(data, training(data, study, seed=2))
    assert first != epoch_of(data, training(data, study, seed=1, epoch=1))


@pytest.mark.parametrize("kind", ["tar", "parquet", "arrow"])
def test_shards_on_a_server_are_those_on_the_disk(tmp_path, serve, monkeypatch, kind):
    make, names = {
        "tar": (tar_shards, "train-{000..001}.tar"),
        "parquet": (parquet_shards, "train-0000{0..1}-of-00002.parquet"),
        "arrow": (arrow_shards, "train-0000{0..1}-of-00002.arrow"),
    }[kind]
    make(tmp_path / "set", [40, 30])
    here = load(DataSettings(source=f"{tmp_path}/set/{names}", size=16))
    server = serve(tmp_path / "set")
    there = load(DataSettings(source=f"{server.url}/{names}", size=16))
    assert there.fingerprint == here.fingerprint
    study = settings(f"{server.url}/{names}", size=16)
    monkeypatch.setattr(loaders, "_loader_processes", lambda: 2)  # which are forked
    before = server.sent
    for (x, y), (again, label) in zip(training(here, study), training(there, study), strict=True):
        assert x.equal(again)
        assert y.equal(label)
    assert server.sent > before
    listed = load(DataSettings(source=f"{server.url}/train-*.{kind}", size=16))
    assert listed.fingerprint == here.fingerprint


def test_an_epoch_fetches_about_what_the_shards_have(tmp_path, serve, monkeypatch):
    # Of about 50 blocks, 8 fit into the memory, so that reading to and fro would show.
    monkeypatch.setattr(tar_module, "BLOCK", 12_000)
    monkeypatch.setattr(samples_module, "MEMORY", 100_000)
    monkeypatch.setattr(order_module, "IN_USE", 50_000)
    numbered_shards(tmp_path / "set", [150, 150])
    server = serve(tmp_path / "set")
    study = settings(f"{server.url}/{{000..001}}.tar", validation_fraction=0.01, test_fraction=0.01)
    data = load(study.data)
    assert (data.train.layout.by_batch, data.train.layout.by_position) == (2, 1)
    size = sum(path.stat().st_size for path in (tmp_path / "set").iterdir())
    server.sent = 0
    assert len(list(training(data, study))) == 36
    near, server.sent = server.sent, 0
    assert 0.5 * size < near < 1.2 * size
    for index in torch.randperm(len(data.train)).tolist():
        _ = data.train[index]
    assert server.sent > 3 * near


def test_a_server_that_fails_is_asked_again(tmp_path, serve, monkeypatch):
    monkeypatch.setattr(shards_module, "WAITS", (0.0, 0.0))
    numbered_shards(tmp_path / "set", [40])
    server = serve(tmp_path / "set")
    data = load(settings(f"{server.url}/000.tar").data)
    data.train._samples._kept.clear()
    server.failures = 2
    assert data.train[0][0].shape == (1, 8)
    assert server.failures == 0
    data.train._samples._kept.clear()
    server.failures = 3
    with pytest.raises(DataError, match=r"000\.tar can't be read: ClientResponseError: 503"):
        data.train[0]


def test_a_server_of_whole_files_alone_is_refused(tmp_path, serve):
    numbered_shards(tmp_path / "set", [40])
    server = serve(tmp_path / "set", ranges=False)
    with pytest.raises(DataError, match="server does not serve parts of files"):
        load(settings(f"{server.url}/000.tar").data)


def test_nobody_at_a_url(serve, tmp_path, monkeypatch):
    monkeypatch.setattr(shards_module, "WAITS", ())
    server = serve(tmp_path)
    with pytest.raises(DataError, match=r"no\.tar can't be read: FileNotFoundError"):
        load(settings(f"{server.url}/no.tar").data)


@pytest.mark.xdist_group("two processes")
def test_two_processes_over_gloo_share_every_sample(tmp_path):
    source = numbered_shards(tmp_path / "set", [31, 4, 50]) / "*.tar"
    launch = "-m torch.distributed.run --standalone --nproc-per-node 2 -m tests.study.stream_worker"
    done = subprocess.run(
        [sys.executable, *launch.split(), str(source)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.strip().splitlines()[-1])
    study = settings(source)
    data = load(study.data)
    alone = epoch_of(data, training(data, study))
    assert told["batches"] == [sorted(batch) for batch in alone]
    assert told["tested"] == sorted(numbers_of(data, x)[0] for x, _ in data.test)
    assert told["apart"] == 0.0


def test_a_trial_of_another_process_reads_what_it_trains_on_alone(tmp_path, serve):
    tar_shards(tmp_path / "set", [40, 24])
    server = serve(tmp_path / "set")
    source = f"{server.url}/train-{{000..001}}.tar"
    study = replace(settings(source, size=16), variants=("none",), epochs=1)
    load(study.data)
    server.sent = 0
    trial = Trial(tmp_path / "run", study, parse_variants(study.variants)[0], seed=0)
    run_trial(trial)
    assert trial.result()["status"] == "finished", trial.result()["reason"]
    # Its index came from the cache, and its blocks fit into the memory: each was fetched once.
    size = sum(path.stat().st_size for path in (tmp_path / "set").iterdir())
    assert 0 < server.sent <= size
