"""Gains over many draws and seeds, with intervals that resample both at once.

They say how far the outcome of this protocol can stray; the proteins are always the same, so they
say nothing about other ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

N_BOOT = 2000


def resampled(
    values: np.ndarray, other: np.ndarray, *, n_boot: int = N_BOOT, seed: int = 0
) -> tuple[float, float, float]:
    """Gain of errors ``(seeds, draws)`` over others, in %: ``(gain, low, high)``.

    Errors are averaged over seeds, and the geometric mean of their ratio is taken over draws; the
    interval (95 %) resamples seeds and draws. ``other`` may have one error per seed, ``(n, 1)``.

    >>> [round(float(x)) for x in resampled(np.full((2, 3), 0.5), np.ones((2, 1)))]
    [50, 50, 50]
    """
    return resampled_product([(1, values), (-1, other)], n_boot=n_boot, seed=seed)


def resampled_product(
    factors: Sequence[tuple[int, np.ndarray]], *, n_boot: int = N_BOOT, seed: int = 0
) -> tuple[float, float, float]:
    """Gain of a product of errors, each to the power +1 or -1, as `resampled` has it for a ratio.

    A ratio of two ratios says how much one gain is beyond another; it is 0 where they are equal.

    >>> half, one = np.full((2, 3), 0.5), np.ones((2, 3))
    >>> [round(float(x)) for x in resampled_product([(1, half), (-1, one), (-1, half), (1, one)])]
    [0, 0, 0]
    """
    shape = factors[0][1].shape
    by_seed, by_draw = _weights(shape, n_boot, seed)

    def gain(over_seeds: np.ndarray, over_draws: np.ndarray) -> np.ndarray:
        logs = sum(power * np.log(over_seeds @ errors) for power, errors in factors)
        return 100 * (1 - np.exp((logs * over_draws).sum(axis=1)))

    seeds, draws = shape
    (every,) = gain(np.full((1, seeds), 1 / seeds), np.full((1, draws), 1 / draws))
    low, high = np.quantile(gain(by_seed, by_draw), [0.025, 0.975])
    return float(every), float(low), float(high)


def resampled_difference(
    values: np.ndarray, *, n_boot: int = N_BOOT, seed: int = 0
) -> tuple[float, float, float]:
    """Mean of differences ``(seeds, draws)`` and its interval, seeds and draws resampled.

    A draw whose measured labels are all alike has no rank correlation (NaN) and is left out.
    """
    kept = values[:, ~np.isnan(values).any(axis=0)]
    by_seed, by_draw = _weights(kept.shape, n_boot, seed)
    low, high = np.quantile(((by_seed @ kept) * by_draw).sum(axis=1), [0.025, 0.975])
    return float(kept.mean()), float(low), float(high)


def _weights(shape: tuple[int, int], n_boot: int, seed: int) -> list[np.ndarray]:
    """How much each seed and each draw counts in every resample, ``(n_boot, n)`` each."""
    rng = np.random.default_rng(seed)
    return [rng.multinomial(n, np.full(n, 1 / n), n_boot) / n for n in shape]
