"""What the encoding changes in the public code's comparison, and what meta-training does.

The encodings answer the same draws with the same seeds, so errors are compared in pairs. Gains are
of the first encoding over another one; what a gain is, and its interval, is said in
`protocol_resample`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from mutmeta_lib.records.record import number
from mutmeta_lib.reproduction.protocol_data import ProtocolData
from mutmeta_lib.reproduction.protocol_numbers import SHORT, shown
from mutmeta_lib.reproduction.protocol_resample import resampled_difference, resampled_product
from mutmeta_lib.reproduction.protocol_steps import ARMS
from mutmeta_lib.reproduction.release_rows import encode_rows
from mutmeta_lib.tasks.vocabulary import Vocabulary

LEARNERS = ("initial", "finetuned", "initial_adapted", *ARMS)
"""Methods that read the text, so that its encoding can matter."""

BASES = ("finetuned", "initial_adapted")
"""What an arm is compared with: fine-tuning on the training part, and the same labels and steps."""

PARTS = {
    "encoding": ((1, "base", 0), (-1, "base", 1)),
    "meta": ((1, "arm", 1), (-1, "base", 1)),
    "interaction": ((1, "arm", 0), (-1, "arm", 1), (-1, "base", 0), (1, "base", 1)),
    "both": ((1, "arm", 0), (-1, "base", 1)),
}
"""The shares of two by two: power, method, and encoding (0 the first, 1 the other) of each error.

``encoding`` is the first encoding's gain without the arm, ``meta`` the arm's gain without the
first encoding, ``both`` that of the two together, and ``interaction`` what they gain together
beyond the product of each alone.
"""

Results = Sequence[Mapping]
"""What `run_seed` gave for every seed."""


def contrast_tables(
    found: Mapping[str, Results], sizes: Sequence[int], encoder: str
) -> dict[str, pd.DataFrame]:
    """Tables ``encodings`` and ``shares``: encoding -> results, the first against the others.

    ``encodings`` has the gain of the first encoding per method, ``shares`` that of each of `PARTS`
    per arm and base. Both are empty when there is one encoding.
    """
    first, *others = found
    encodings, shares = [], []
    for other in others:
        for target in found[first][0]["targets"]:
            for size in sizes:
                pair = [_drawn(found[name], target, size) for name in (first, other)]
                here = {"encoder": encoder, "target": target, "size": size}
                here |= {"encoding": first, "against": other}
                for method in LEARNERS:
                    factors = [(1, pair[0][method]), (-1, pair[1][method])]
                    encodings.append({**here, "method": method, **_gain(factors)})
                for arm in ARMS:
                    for base in BASES:
                        for part, terms in PARTS.items():
                            method = {"arm": arm, "base": base}
                            factors = [(power, pair[i][method[who]]) for power, who, i in terms]
                            row = {"method": arm, "base": base, "part": part}
                            shares.append({**here, **row, **_gain(factors)})
    return {"encodings": pd.DataFrame(encodings), "shares": pd.DataFrame(shares)}


def _drawn(results: Results, target: str, size: int) -> dict[str, dict[str, np.ndarray]]:
    """Per method, errors and rank correlations on the draws' query rows, ``(seeds, draws)``."""
    drawn = [result["targets"][target]["draws"][str(size)] for result in results]
    return {
        method: {
            what: np.array([one[method][what] for one in drawn], dtype=float)
            for what in ("mse", "spearman")
        }
        for method in LEARNERS
    }


def _gain(factors: Sequence[tuple[int, Mapping[str, np.ndarray]]]) -> dict:
    """Gain in error and difference of rank correlation, each with its interval."""
    gain, low, high = resampled_product([(power, drawn["mse"]) for power, drawn in factors])
    rank = resampled_difference(sum(power * drawn["spearman"] for power, drawn in factors))
    seeds, draws = factors[0][1]["mse"].shape
    named = dict(zip(("spearman", "spearman_low", "spearman_high"), rank, strict=True))
    return {"gain": gain, "low": low, "high": high, **named, "seeds": seeds, "draws": draws}


def text_table(
    data: ProtocolData, encodings: Sequence[str], vocabulary: Vocabulary, max_tokens: int
) -> pd.DataFrame:
    """How many test rows, stated sequences, and different texts there are, per target.

    Rows that are one text are one to the model, whatever their labels.
    """
    rows = []
    for target, part in data.test.items():
        sequences = len({sequence for sequence, _ in part.variants})
        for encoding in encodings:
            tokens = encode_rows(part.variants, encoding, vocabulary, max_tokens)
            written = np.where(tokens.mask.numpy(), tokens.token_ids.numpy(), -1)
            counted = {"rows": len(part), "sequences": sequences}
            counted["texts"] = len(np.unique(written, axis=0))
            rows.append({"target": target, "encoding": encoding, **counted})
    return pd.DataFrame(rows)


def contrast_numbers(
    encodings: pd.DataFrame, shares: pd.DataFrame, texts: pd.DataFrame
) -> dict[str, dict]:
    """Numbers ``<encoder>_<target>_<method>_<encoding>_over_<other>`` and of the shares.

    ``_spearman`` follows the difference of rank correlations, ``_at_8`` another size than the one
    that is `shown`. ``<encoder>_<encoding>_<target>_texts`` counts texts of test rows.
    """
    named = {}
    for row in texts.to_dict("records"):
        name = f"{row['encoder']}_{row['encoding']}_{SHORT.get(row['target'], row['target'])}_texts"
        named[name] = number(row["texts"], n=row["rows"], unit=f"of {row['rows']} rows")
    for row in [*encodings.to_dict("records"), *shares.to_dict("records")]:
        name = f"{row['encoder']}_{SHORT.get(row['target'], row['target'])}_{row['method']}"
        if "part" in row:
            name += f"_and_{row['base']}_{row['part']}"
        name += f"_{row['encoding']}_over_{row['against']}"
        if row["size"] != shown(set(encodings["size"])):
            name += f"_at_{row['size']}"
        n = int(row["seeds"] * row["draws"])
        named[name] = number(row["gain"], row["low"], row["high"], n, "%")
        rank = (row[f"spearman{end}"] for end in ("", "_low", "_high"))
        named[f"{name}_spearman"] = number(*rank, n)
    return named
