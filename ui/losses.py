"""What was lost, in words: said beside every number that it touches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from profiler.window import COUNTERS, LOSSES


def describe_losses(counters: Mapping[str, int], bad_segments: Sequence[str]) -> list[str]:
    """Return one line a kind of loss, none where nothing was lost."""
    lines = [f"{counters[name]:,} {COUNTERS[name]}" for name in LOSSES if counters.get(name)]
    lines += [f"damaged segment left out: {name}" for name in bad_segments]
    return lines


def coverage(counters: Mapping[str, int]) -> float | None:
    """Share of the samples that the kernel's own busy time calls for; None where that is not known."""
    expected = counters.get("expected_samples", 0)
    return counters.get("samples", 0) / expected if expected else None
