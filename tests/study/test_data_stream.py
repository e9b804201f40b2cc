"""Shards as a source: tar and parquet files by path, whole, damaged and changed under our feet."""

import io
import os
import pickle
import shutil

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from shards import (
    MAKERS,
    numbered,
    numbered_shards,
    numbers_of,
    parquet_shards,
    picture,
    sample,
    tar_shards,
    write_tar,
)

from whatwhere.study.data import DataError, DataSettings, load
from whatwhere.study.data.stream import index as index_module
from whatwhere.study.data.stream import samples as samples_module
from whatwhere.study.data.stream import tables as tables_module


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def settings(source, **options) -> DataSettings:
    return DataSettings(source=str(source), **{"size": 16, **options})


def sizes(data) -> list[int]:
    return [len(data.train), len(data.val), len(data.test)]


@pytest.mark.parametrize("kind", list(MAKERS))
def test_shards_are_cut_as_folders_are(tmp_path, kind):
    MAKERS[kind](tmp_path / "bars", [37, 5, 18])
    data = load(settings(tmp_path / "bars" / f"train-*.{kind}"))
    assert (data.name, data.shape, sizes(data)) == ("bars", (3, 16, 16), [42, 9, 9])
    assert data.classes == (("0", "1") if kind == "tar" else ("bar", "post"))
    for split in (data.train, data.val, data.test):
        assert abs(int(split.labels.bincount().diff())) <= 1
    for x, label in data.val:
        shown = data.unnormalise(x)
        bar, post = shown[:, 7:9, 3:6].mean(), shown[:, 3:6, 7:9].mean()
        assert (bar < post) == bool(label)
    stacked = torch.stack([x for x, _ in data.train])
    torch.testing.assert_close(stacked.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        stacked.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-5, rtol=0
    )


def test_every_sample_is_itself(tmp_path):
    numbered_shards(tmp_path, [11, 3, 26])
    data = load(settings(tmp_path / "*.tar", size=None))
    assert (data.shape, data.classes) == ((1, 8), ("0", "1"))
    every = []
    for split in (data.train, data.val, data.test):
        mine = [numbers_of(data, x)[0] for x, _ in split]
        assert [number % 2 for number in mine] == split.labels.tolist()
        every += mine
    assert sorted(every) == list(range(40))


@pytest.mark.parametrize("kind", list(MAKERS))
def test_splits_by_name(tmp_path, kind):
    make = MAKERS[kind]
    make(tmp_path / "set", [20, 4])
    make(tmp_path / "set", [6], split="val", first=24)
    make(tmp_path / "set", [8], split="test", first=30)
    data = load(settings(f"{tmp_path}/set/{{train,val,test}}-*.{kind}"))
    assert sizes(data) == [24, 6, 8]
    # In another order, so other data.
    assert load(settings(f"{tmp_path}/set/*.{kind}")).fingerprint != data.fingerprint
    few = load(settings(f"{tmp_path}/set/*.{kind}", max_train=12))
    assert sizes(few) == [12, 3, 4]


@pytest.mark.parametrize("kind", list(MAKERS))
def test_sets_laid_out_as_on_hugging_face(tmp_path, kind):
    make = MAKERS[kind]
    make(tmp_path / "set", [20, 4])
    make(tmp_path / "set", [6], split="validation", first=24)
    make(tmp_path / "set", [8], split="test", first=30)
    data = load(settings(f"hf:{tmp_path}/set"))
    assert (data.name, sizes(data)) == ("set", [24, 6, 8])


@pytest.mark.parametrize(
    ("rest", "label"),
    [
        ({"json": b'{"label": 3, "who": "me"}'}, "3"),
        ({"json": b'"cat"'}, "cat"),
        ({"json": b"{}", "txt": b"tabby cat\n"}, "tabby cat"),
        ({"cls": b"5", "txt": b"a caption"}, "5"),
    ],
)
def test_labels(tmp_path, rest, label):
    other = [sample(number, 9) for number in range(4)]
    mine = [{"png": picture(number, 0), **rest} for number in range(4)]
    write_tar(tmp_path / "a.tar", other + mine)
    data = load(settings(tmp_path / "a.tar"))
    assert set(data.classes) == {"9", label}


def test_numbers_are_sorted_as_numbers(tmp_path):
    write_tar(tmp_path / "a.tar", [sample(n, label) for n in range(4) for label in (10, 9, 2)])
    assert load(settings(tmp_path / "a.tar")).classes == ("2", "9", "10")


def test_grey_pictures_have_one_channel(tmp_path):
    grey = io.BytesIO()
    np.save(grey, np.arange(256, dtype=np.uint8).reshape(16, 16))
    rows = [{"npy": grey.getvalue(), "cls": b"01"[n % 2 : n % 2 + 1]} for n in range(12)]
    write_tar(tmp_path / "a.tar", rows)
    data = load(settings(tmp_path / "a.tar"))
    assert (data.shape, len(data.mean)) == ((1, 16, 16), 1)
    write_tar(tmp_path / "b.tar", rows + [sample(n) for n in range(2)])
    mixed = load(settings(tmp_path / "b.tar"))
    assert (mixed.shape, len(mixed.mean)) == ((3, 16, 16), 3)
    assert {tuple(x.shape) for x, _ in mixed.train} == {(3, 16, 16)}


def spoilt() -> list[dict[str, bytes]]:
    return [
        {"png": b"no picture", "cls": b"0"},
        {"png": picture(1, 1)},
        {"cls": b"1"},
        {"png": picture(2, 0), "jpg": picture(2, 0), "cls": b"0"},
        {"png": picture(3, 1), "json": b"{"},
        {"png": picture(4, 1)[:-40], "cls": b"0"},
        {"npy": numbered(0.0)[:-4], "cls": b"0"},
        {"npy": numbered(np.nan), "cls": b"0"},
    ]


def test_samples_that_cannot_be_used_are_skipped_and_listed(tmp_path):
    write_tar(tmp_path / "a.tar", [*spoilt()[:4], *(sample(n) for n in range(20)), *spoilt()[4:]])
    data = load(settings(tmp_path / "a.tar"))
    assert sum(sizes(data)) == 20
    reasons = "\n".join(f"{each.path} {each.reason}" for each in data.skipped)
    assert len(data.skipped) == 8
    for words in ("a.tar: 000000 Unident", "no label", "got 0 among", "got 2 among", "NaN"):
        assert words in reasons
    with pytest.raises(DataError, match="8 of 28 images cannot be read, more than max_unread"):
        load(settings(tmp_path / "a.tar", max_unreadable=7))


def test_rows_of_parquet_that_cannot_be_used(tmp_path):
    table = pyarrow.table(
        {
            "img": [*(picture(n, n % 2) for n in range(12)), None, b"no", picture(0, 0)],
            "label": [*(n % 2 for n in range(14)), None],
        }
    )
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet", row_group_size=4)
    data = load(settings(tmp_path / "a.parquet"))
    assert sum(sizes(data)) == 12
    assert len(data.skipped) == 3
    assert "row 0 of row group 3" in data.skipped[0].path


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: content[:-10240],  # between two samples
        lambda content: content[:5120] + b"\xff" * 512 + content[5632:],
        lambda content: b"\x1f\x8b" + content,
        lambda _: b"",
    ],
)
def test_a_damaged_tar_is_named(tmp_path, damage):
    tar_shards(tmp_path, [20, 20])
    path = tmp_path / "train-001.tar"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=r"train-001.tar is damaged(,| or) cut off"):
        load(settings(tmp_path / "*.tar"))


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-8],
        lambda content: content[:-500],
        lambda content: content[:300] + bytes(500) + content[800:],
        lambda _: b"",
    ],
)
@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_a_damaged_table_is_named(tmp_path, kind, damage):
    MAKERS[kind](tmp_path, [20, 20])
    path = tmp_path / f"train-00001-of-00002.{kind}"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(
        DataError, match=rf"train-00001-of-00002\.{kind} (is damaged|can't be read)"
    ):
        load(settings(tmp_path / f"*.{kind}"))


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_large_row_groups_are_refused(tmp_path, monkeypatch, kind):
    MAKERS[kind](tmp_path, [20])
    monkeypatch.setattr(tables_module, "LARGEST_GROUP", 500)
    with pytest.raises(DataError, match="fewer rows in a group"):
        load(settings(tmp_path / f"*.{kind}"))


@pytest.mark.parametrize(
    ("files", "source", "words"),
    [
        ({"a.tar": 4}, "b-*.tar", "that match .*b-.*found none"),
        ({"a.tar": 4}, "b.tar", "b.tar can't be read: FileNotFoundError"),
        ({"train.tar": 4, "more.tar": 4}, "*.tar", "of every shard or of none"),
        ({"val.tar": 4}, "*.tar", "expected shards to train on"),
        ({"a.tar": 4}, "{a.tar,*.tar}", "got some of them twice"),
        ({"a.tar": 0}, "a.tar", "found none"),
        ({"a.tar": 1}, "a.tar", "at least 2 classes"),
        ({}, "hf:/nowhere/at/all", "can't be found"),
        ({}, "nowhere://y/x.tar", "nowhere:// can't be read here"),
    ],
)
def test_sources_that_are_none(tmp_path, files, source, words):
    for name, count in files.items():
        write_tar(tmp_path / name, [sample(n) for n in range(count)])
    where = source if ":" in source else f"{tmp_path}/{source}"
    with pytest.raises(DataError, match=words):
        load(settings(where))


def test_other_files_of_a_set_are_refused(tmp_path):
    (tmp_path / "train.csv").write_text("image,label\n")
    with pytest.raises(DataError, match=r"ending in \.csv"):
        load(settings(f"hf:{tmp_path}"))


def test_labels_unknown_in_training_are_refused(tmp_path):
    write_tar(tmp_path / "train.tar", [sample(n) for n in range(8)])
    write_tar(tmp_path / "val.tar", [sample(0, 7)])
    with pytest.raises(DataError, match=r"labels of val .* got 7 as well"):
        load(settings(tmp_path / "*.tar"))


def test_arrays_of_two_shapes_are_refused(tmp_path):
    write_tar(
        tmp_path / "a.tar", [{"npy": numbered(0), "cls": b"0"}, {"npy": numbered(0), "cls": b"1"}]
    )
    write_tar(tmp_path / "b.tar", [{"npy": numbered(0, (2, 8)), "cls": b"0"}])
    with pytest.raises(DataError, match=r"\(1, 8\) in .*a.tar, \(2, 8\) in .*b.tar"):
        load(settings(tmp_path / "*.tar", size=None))
    with pytest.raises(DataError, match="expected size only with images"):
        load(settings(tmp_path / "a.tar"))


def test_a_shard_is_read_once(tmp_path, monkeypatch):
    tar_shards(tmp_path / "set", [20, 10])
    source = tmp_path / "set" / "*.tar"
    before = load(settings(source))
    reads = []
    real = index_module._read
    monkeypatch.setattr(
        index_module, "_read", lambda shard, **k: reads.append(shard.name) or real(shard, **k)
    )
    again = load(settings(source))
    assert reads == []
    assert (again.fingerprint, again.mean, sizes(again)) == (
        before.fingerprint,
        before.mean,
        sizes(before),
    )
    write_tar(tmp_path / "set" / "train-001.tar", [sample(n) for n in range(7, 30)])
    changed = load(settings(source))
    assert reads == ["train-001.tar"]
    assert changed.fingerprint != before.fingerprint


def test_a_torn_index_is_made_again(tmp_path):
    tar_shards(tmp_path / "set", [20])
    before = load(settings(tmp_path / "set" / "*.tar"))
    [kept] = (tmp_path / "cache" / "whatwhere" / "shards").glob("*.npz")
    kept.write_bytes(kept.read_bytes()[:100])
    assert load(settings(tmp_path / "set" / "*.tar")).fingerprint == before.fingerprint


def test_where_nothing_can_be_kept_shards_are_read_each_time(tmp_path, monkeypatch, capsys):
    tar_shards(tmp_path / "set", [20])
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert sum(sizes(load(settings(tmp_path / "set" / "*.tar")))) == 20
    assert "can't be kept" in capsys.readouterr().err


def test_the_fingerprint_is_of_the_content(tmp_path):
    tar_shards(tmp_path / "a", [20, 6])
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    first = load(settings(tmp_path / "a" / "*.tar"))
    assert load(settings(tmp_path / "b" / "*.tar")).fingerprint == first.fingerprint
    write_tar(tmp_path / "b" / "train-001.tar", [sample(n) for n in range(21, 27)])
    assert load(settings(tmp_path / "b" / "*.tar")).fingerprint != first.fingerprint


@pytest.mark.parametrize("kind", list(MAKERS))
def test_shards_that_shrink_in_training(tmp_path, kind):
    MAKERS[kind](tmp_path, [40])
    data = load(settings(tmp_path / f"*.{kind}"))
    [path] = tmp_path.glob(f"*.{kind}")
    os.truncate(path, 1000)
    data.train._samples._kept.clear()
    with pytest.raises(DataError, match=r"train-0.*(shorter than it was|can't be read)"):
        data.train[0]


def test_blocks_beyond_the_memory_are_let_go(tmp_path, monkeypatch):
    parquet_shards(tmp_path, [60], group=5)
    data = load(settings(tmp_path / "*.parquet"))
    samples = data.train._samples
    room = 3 * int(samples.places.bytes.max())
    monkeypatch.setattr(samples_module, "MEMORY", room)
    for x, _ in data.train:
        assert x.shape == (3, 16, 16)
        assert 0 < samples._bytes <= room
        assert samples._bytes == sum(int(samples.places.bytes[n]) for n in samples._kept)
    assert len(samples._kept) < 12


def test_other_processes_are_not_sent_what_was_read(tmp_path):
    tar_shards(tmp_path, [40])
    data = load(settings(tmp_path / "*.tar"))
    first, label = data.train[0]
    sent = pickle.loads(pickle.dumps(data.train))
    assert data.train._samples._bytes > 0
    assert sent._samples._bytes == len(sent._samples._kept) == 0
    assert sent[0][0].equal(first)
    assert sent[0][1] == label
