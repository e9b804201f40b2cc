"""Memory for results has the layout of x, and asking for large pages changes nothing else."""

import pytest
import torch

from whatwhere.ops.cpu import outputs


@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (0, 3, 5, 7), (4, 64, 64, 64)], ids=str)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_results_are_laid_out_as_x_is(shape, layout):
    x = torch.zeros(shape).contiguous(memory_format=layout)
    y = outputs.empty_like(x)
    assert (y.shape, y.dtype) == (x.shape, x.dtype)
    if x.numel() > 0:  # without elements every layout is contiguous
        assert y.is_contiguous(memory_format=layout)


def test_only_whole_pages_inside_the_result_are_asked_for(monkeypatch):
    asked = []
    monkeypatch.setattr(outputs, "_advise", lambda: lambda *arguments: asked.append(arguments))
    for megabytes in (1, 3, 5, 9):
        asked.clear()
        y = outputs.empty_like(torch.empty(1, megabytes * 2**18))
        pages = y.nbytes // outputs.PAGE
        for start, size, _ in asked:
            assert start % outputs.PAGE == size % outputs.PAGE == 0
            assert y.data_ptr() <= start
            assert start + size <= y.data_ptr() + y.nbytes
        assert sum(size for _, size, _ in asked) in (
            max(0, pages - 1) * outputs.PAGE,
            pages * outputs.PAGE,
        )


def test_works_where_there_is_no_such_call(monkeypatch):
    monkeypatch.setattr(outputs, "_advise", lambda: None)
    assert outputs.empty_like(torch.zeros(1, 2**20)).shape == (1, 2**20)
