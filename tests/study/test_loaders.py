"""Batches that processes share: all samples once, in every process as many batches."""

from dataclasses import replace

import pytest
import torch

from whatwhere.study.build import load_data
from whatwhere.study.loaders import EpochOrder, SharedBatches, evaluation_loader, training_loader


@pytest.mark.parametrize("processes", [1, 2, 3, 4])
def test_shares_make_up_the_batches_of_one_process(processes):
    def batches(rank, processes):
        shared = SharedBatches(
            EpochOrder(50, seed=3), 12, drop_last=True, rank=rank, processes=processes
        )
        assert len(shared) == 4
        return list(shared)

    shares = [batches(rank, processes) for rank in range(processes)]
    for whole, *parts in zip(batches(0, 1), *shares, strict=True):
        assert sorted(key for part in parts for key in part) == sorted(whole)
        assert {len(part) for part in parts} == {12 // processes}


@pytest.mark.parametrize("batch_size", [1, 4, 64])
@pytest.mark.parametrize("processes", [1, 2, 3, 5, 47])
def test_each_sample_is_evaluated_once(settings, processes, batch_size):
    split = load_data(settings.data).test
    settings = replace(settings, batch_size=batch_size)
    shares = [
        list(evaluation_loader(split, settings, rank=rank, processes=processes).batch_sampler)
        for rank in range(processes)
    ]
    indices = [index for share in shares for batch in share for index in batch]
    assert sorted(indices) == list(range(len(split)))
    assert len({len(share) for share in shares}) == 1
    sizes = {len(batch) for share in shares for batch in share}
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= max(2, 2 * batch_size // processes)


def test_too_few_samples_to_share_are_refused(settings):
    with pytest.raises(ValueError, match="a sample per device to evaluate on, got 47 samples"):
        evaluation_loader(load_data(settings.data).test, settings, rank=0, processes=48)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_loader_goes_on_where_its_state_was_taken(settings, monkeypatch, workers):
    monkeypatch.setattr("whatwhere.study.loaders._loader_processes", lambda: workers)
    split = load_data(settings.data).train

    def loader(epoch):
        made = training_loader(split, settings, seed=1)
        made.batch_sampler.sampler.set_epoch(epoch)
        return made

    whole = [batch for batch, _ in loader(2)]
    first, again = loader(2), loader(0)
    drawn = iter(first)
    for _ in range(2):
        next(drawn)
    again.load_state_dict(first.state_dict())
    rest = iter(again)  # Lightning makes the iterator before it says which epoch it is
    again.batch_sampler.sampler.set_epoch(2)
    assert len(again) == len(whole) == 6
    for batch, expected in zip([b for b, _ in rest], whole[2:], strict=True):
        assert torch.equal(batch, expected)
    assert again.state_dict() == {"batches": 6}
    again.batch_sampler.sampler.set_epoch(2)
    assert torch.equal(next(iter(again))[0], whole[0])
