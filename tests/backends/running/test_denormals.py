"""Denormals count as zero inside the block, in this thread alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from backends.running.denormals import denormals_as_zero


def halved() -> float:
    return float(torch.tensor([1.5e-38]) * 0.5)


def test_only_inside_and_only_in_this_thread() -> None:
    if not torch.set_flush_denormal(False):
        pytest.skip("this processor has no such setting")
    with ThreadPoolExecutor(1) as pool:
        pool.submit(halved).result()  # its thread begins before: a new one takes over the setting
        with denormals_as_zero():
            assert halved() == 0
            assert pool.submit(halved).result() == pytest.approx(7.5e-39, rel=1e-3)
        assert halved() == pytest.approx(7.5e-39, rel=1e-3)
    with pytest.raises(RuntimeError), denormals_as_zero():
        raise RuntimeError
    assert halved() > 0
