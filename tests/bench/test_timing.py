"""Turns, medians and ratios against numbers worked by hand."""

import time

import pytest

from vit_ssl_jax.bench import peaks, timing


def test_contenders_take_turns():
    calls = []
    steps = {name: lambda name=name: calls.append(name) for name in "abc"}
    seconds = timing.take_turns(steps, 3)
    assert calls == list("abcabcabc")
    assert {name: len(times) for name, times in seconds.items()} == dict(a=3, b=3, c=3)


def test_a_slow_step_is_measured_slow():
    steps = dict(slow=lambda: time.sleep(0.03), fast=lambda: None)
    seconds = timing.take_turns(steps, 3)
    assert 0.03 <= min(seconds["slow"]) < 0.3
    assert max(seconds["fast"]) < 0.03


def test_one_bad_round_moves_neither_median_nor_ratio():
    found = timing.summarize([2.0, 2.0, 1.0, 3.0, 100.0], images=8)
    assert found["step_seconds"] == 2.0
    assert found["images_per_second"] == 4.0
    assert (found["step_seconds_low"], found["step_seconds_high"]) == (2.0, 3.0)
    # A machine that slows down tenfold half-way slows both.
    assert timing.ratio([1.0, 1.0, 10.0], [2.0, 2.0, 20.0]) == 2.0


@pytest.mark.parametrize(
    ("kind", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989.4e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-40GB", 312e12),
        ("NVIDIA A10G", 70e12),  # not the A10, whose name it starts with
        ("NVIDIA L40S", 362e12),
        ("NVIDIA L40", None),
        ("TPU v5 lite", 197e12),
        ("TPU v4", 275e12),
        ("cpu", None),
    ],
)
def test_peaks_are_those_of_the_data_sheets(kind, peak):
    found = peaks.peak(kind, "bfloat16")
    assert found == (pytest.approx(peak, rel=0.01) if peak else None)
    assert peaks.peak(kind, "float32") is None
