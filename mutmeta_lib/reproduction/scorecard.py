"""What the first page's figure shows, as two tidy tables out of the committed records.

``ranking`` holds how well variants are ranked at ten labels, ``claims`` the paper's figures beside
what was measured, with verdicts by the book's criteria.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from mutmeta_lib.records.record import Record
from mutmeta_lib.study.gains import verdict

RECORDS = ("protocol", "speed", "transfer")
"""Experiments whose records the figure is drawn from."""

CONTROLS = {
    "multitask": "jointly trained start",
    "onehot": "ridge, one-hot",
    "ridge": "ridge, encoder",
    "finetune": "fine-tuning",
    "blosum": "BLOSUM62, no label",
}
"""Control -> how the figure calls it."""

TRAINED = ("maml", "multitask", "finetune")
"""Methods that differ when the property is new: rates or starts come from other assays."""

ENDS = ("value", "low", "high")


def ranking(transfer: Record, labels: int = 10) -> pd.DataFrame:
    """Mean Spearman correlation of MAML and of its controls, best first.

    Returns:
        Columns method, name, known (the property was in meta-training), value, low, high, and
        MAML's paired lead as lead, lead_low, lead_high (NaN for MAML itself).

    """
    numbers, rows = transfer.numbers, []
    for method, name in {"maml": "MAML", **CONTROLS}.items():
        for regime in ("proteins", "properties"):
            if regime == "properties" and method not in TRAINED:
                continue
            ends = _ends(numbers[f"{regime}_all_{method}_{labels}"])
            lead = dict.fromkeys(ENDS, np.nan)
            if method != "maml":
                lead = _ends(numbers[f"{regime}_all_maml_minus_{method}_{labels}"])
            leads = dict(zip(("lead", "lead_low", "lead_high"), lead.values(), strict=True))
            row = {"method": method, "name": name, "known": regime == "proteins"}
            rows.append(row | ends | leads)
    table = pd.DataFrame(rows)
    best = table[table["known"]].set_index("method")["value"]
    order = table["method"].map(best).rsub(0)
    return table.loc[order.sort_values(kind="stable").index].reset_index(drop=True)


def claims(records: Mapping[str, Record]) -> pd.DataFrame:
    """The paper's four figures and what was measured, in % of fine-tuning's error or time saved.

    Returns:
        Columns claim, claimed, verdict, name (of the row), decides (by the criteria; other ways of
        counting stand beside), value, low, high. A low end that is not bounded is -inf.

    """
    return pd.concat(
        [
            _accuracy(records, "Fitness: 29 % more accurate", 29, "fitness", "binding"),
            _time(records, "Fitness: 65 % less time", 65, "fitness", "binding"),
            _accuracy(records, "Solubility: 94 % more accurate", 94, "solubility", "solubility"),
            _time(records, "Solubility: 55 % less time", 55, "solubility", "solubility"),
        ],
        ignore_index=True,
    )


def in_words(ranking: pd.DataFrame, claims: pd.DataFrame) -> str:
    """The figure for readers who do not see it, in one paragraph."""
    known = ranking[ranking["known"]]
    ours = known.set_index("method").loc["maml", "value"]
    new = ranking[~ranking["known"]].set_index("method")["value"]
    others = "; ".join(
        f"{row.name}: {row.value:.2f}" for row in known.itertuples() if row.method != "maml"
    )
    tested = "; ".join(
        f"{row.claim}: measured {row.value:.0f} %, {row.verdict}".replace("-", "−")
        for row in claims[claims["decides"]].groupby("claim", sort=False).tail(1).itertuples()
    )
    return (
        "Two panels. Above, mean Spearman correlation with ten labels of an unseen protein, on an "
        f"axis from 0 to 1. MAML: {ours:.2f}; {others}. Where the property is new as well, MAML: "
        f"{new['maml']:.2f}; fine-tuning: {new['finetune']:.2f}. Below, the paper’s "
        f"figures as lines beside our gains with 95 % intervals. On unseen proteins: {tested}."
    )


def _accuracy(
    records: Mapping[str, Record], claim: str, claimed: float, group: str, target: str
) -> pd.DataFrame:
    """Gains in squared error: the three arms, then the two that are scored as released."""
    released, transfer = records["protocol"].numbers, records["transfer"]
    arm = f"esm2_separator_{target}"
    rows = [
        ("as released", True, _ends(released[f"{arm}_released_same_labels"])),
        ("as described", True, _ends(released[f"{arm}_second_order_same_labels"])),
        (
            "unseen proteins",
            True,
            _ends(transfer.numbers[f"proteins_{group}_gain_over_finetune_mse"], 100),
        ),
        ("scored as released", False, _ends(released[f"{arm}_second_order_reported"])),
        ("fine-tuning, scored so", False, _ends(released[f"{arm}_finetuned_reported"])),
    ]
    chosen = {"regime": "proteins", "group": group, "baseline": "finetune"}
    gain = _only(transfer.table("gains"), rates="error", metric="mse", **chosen)
    difference = _only(transfer.table("differences"), metric="spearman", shots=10, **chosen)
    said = verdict(claimed / 100, gain, difference)
    if said == "not reproduced" and all(ends["low"] <= 0 for _, decides, ends in rows if decides):
        said += " in any arm"
    return _block(claim, claimed, said, rows)


def _time(
    records: Mapping[str, Record], claim: str, claimed: float, group: str, target: str
) -> pd.DataFrame:
    """Shares of fine-tuning's time saved: by the criteria, by a stopwatch, and as released."""
    speed = records["speed"]
    to_error = _ends(speed.numbers[f"saved_maml_10_{group}"], 100)
    draws = speed.table("draws")
    seen = draws[(draws["labels"] == 10) & (draws["property"] == group)]
    gain = {end: to_error[end] / 100 for end in ("low", "high")}
    gain["n_units"] = seen["cluster"].nunique()
    rows = [
        ("to fine-tuning’s error", True, to_error),
        (
            "against all its steps",
            False,
            _ends(speed.numbers[f"saved_of_all_maml_10_{group}"], 100),
        ),
        (
            "counted as released",
            False,
            _ends(records["protocol"].numbers[f"esm2_separator_{target}_released_time"]),
        ),
    ]
    # Time has no rank correlation that could disagree with it.
    return _block(claim, claimed, verdict(claimed / 100, gain, {"mean": np.inf}), rows)


def _block(claim: str, claimed: float, said: str, rows: list[tuple]) -> pd.DataFrame:
    same = {"claim": claim, "claimed": claimed, "verdict": said}
    return pd.DataFrame(
        [same | {"name": name, "decides": decides} | ends for name, decides, ends in rows]
    )


def _ends(number: Mapping[str, Any], scale: float = 1) -> dict[str, float]:
    """Value and interval of a record's number; NaN without one, -inf for an unbounded low end."""
    value, low, high = (number[end] for end in ENDS)
    if low is None:
        low = np.nan if high is None else -np.inf
    return {
        "value": scale * value,
        "low": scale * low,
        "high": np.nan if high is None else scale * high,
    }


def _only(table: pd.DataFrame, **chosen: object) -> dict[str, float]:
    for column, value in chosen.items():
        table = table[table[column] == value]
    (row,) = table.to_dict("records")
    return row
