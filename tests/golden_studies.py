"""Small runs of every experiment on bundled data, and the tables they gave: `tests/golden`.

``python tests/golden_studies.py`` writes the tables again. A change of a number that is meant says
why in its commit; any other is a fault.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from mutmeta_lib.app import experiments
from mutmeta_lib.records.record import Record

CLOCKED = {"clock", "seconds"}
"""Tables that hold times in columns of other names."""
FOLDER = Path(__file__).parent / "golden"
IDS = (
    "ABETA42_SEUMA2021_on_D1V",
    "ABETA42_SEUMA2021_on_F4S",
    "GB1_OLSON2014_on_Q2H",
    "GB1_NISTHAL2019_on_WT",
    "TDP43_BOLOGNESI2019_on_N2K",
    "TDP43_BOLOGNESI2019_on_S3R",
)
OUTER = {"meta_steps": 2, "tasks_per_step": 2, "support": 4, "query": 4, "inner_steps": 1}
TRANSFER = {**OUTER, "per_protein": 1, "cap": 40, "n_folds": 3, "seeds": 1, "pool": 10,
            "shots": (0, 10), "adapt_steps": 2, "validate_every": 1}  # fmt: skip
STUDIES = {
    "few_shot": {"ids": IDS, **OUTER, "seeds": 1, "shots": (0, 5), "max_query": 12,
                 "adapt_steps": 2, "first_order": True, "folds": (0, 1)},
    "transfer": {**TRANSFER, "decided_at": 10, "regimes": ("related", "proteins"),
                 "closed_steps": 2, "family": ("r2d2", "fomaml"),
                 "methods": ("maml", "multitask", "finetune", "ridge", "onehot")},
    "transfer_encodings": {**TRANSFER, "pairs": (("separator", "sites"), ("mutant", "sites")),
                           "methods": ("maml", "finetune", "ridge")},
    "transfer_depth": {**TRANSFER, "max_tokens": 32, "depths": ("raw head", "head"),
                       "methods": ("fomaml", "finetune"), "tuning_assays": 1},
    "timing": {"ids": IDS, **OUTER, "sizes": (5, 10), "seeds": 1, "adapt_steps": 2, "epochs": 1,
               "max_query": 12},
    "swap": {**OUTER, "per_protein": 2, "test_ids": ("GB1_NISTHAL2019_on_WT",), "test_cap": 40,
             "swaps": ("same", "noise 0.3"), "shots": (0, 10), "seeds": 1, "adapt_steps": 2,
             "tuning_tasks": 2},
    "held_out": {"per_protein": 1, "encodings": ("mutant", "separator"), "poolings": ("sites",),
                 "seeds": 1, "mlp_steps": 2},
    "meta_training": {"ids": IDS, **OUTER},
    "encodings": {"ids": IDS[:3], "encodings": ("separator", "mutant"), "poolings": ("sites",),
                  "seeds": 1, "steps": 2, "batch_size": 4, "max_test": 15},
    "speed": {**OUTER, "per_protein": 1, "labels": (5, 10), "horizon": 3, "n_folds": 3,
              "folds": (0,), "seeds": 1, "tuning_tasks": 2, "max_query": 20,
              "size_ids": ("GB1_NISTHAL2019_on_WT",), "sizes": (5, 20), "epochs": 1},
    "protocols": {**OUTER, "per_protein": 4, "pair_cap": 40, "shots": (0, 10), "seeds": 1,
                  "adapt_steps": 2, "source_steps": 3, "tuning_tasks": 2},
    "protocol": {"release_dir": "demo", "encoder": "tiny", "encodings": ("separator",),
                 "tiny_encodings": (), "max_tokens": 120, "sizes": (4,), "draws": 2, "seeds": 1,
                 "initial_epochs": 1, "finetune_epochs": 1, "maml_epochs": 1, "inner_steps": 1,
                 "time_rows": ()},
}  # fmt: skip


def run(name: str) -> Record:
    """Run one of `STUDIES`."""
    return experiments.EXPERIMENTS[name](**STUDIES[name], profile="quick")


def timeless(record: Record) -> dict[str, pd.DataFrame]:
    """The tables of a record without what depends on the clock."""
    tables = {}
    for name in sorted(set(record.tables) - CLOCKED):
        table = record.table(name)
        timed = table.astype(str).apply(lambda column: column.str.contains("second")).any(axis=1)
        columns = [column for column in table if "second" not in column]
        tables[name] = table.loc[~timed, columns].reset_index(drop=True)
    return tables


def golden(name: str) -> dict[str, pd.DataFrame]:
    """The tables that are to come out."""
    content = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return {
        table: pd.DataFrame(rows["rows"], columns=rows["columns"])
        for table, rows in content.items()
    }


def write(name: str) -> None:
    """Write the tables of one study."""
    tables = {
        table: {"columns": list(frame), "rows": json.loads(frame.to_json(orient="values"))}
        for table, frame in timeless(run(name)).items()
    }
    lines = (
        f'{json.dumps(table)}: {{"columns": {json.dumps(rows["columns"])}, "rows": [\n'
        + ",\n".join(json.dumps(row) for row in rows["rows"])
        + "]}"
        for table, rows in tables.items()
    )
    (FOLDER / f"{name}.json").write_text("{" + ",\n".join(lines) + "}\n", encoding="utf-8")


def differences(found: pd.DataFrame, wanted: pd.DataFrame) -> str:
    """What differs between two tables, in words; empty if nothing does.

    Numbers may differ in the last places, which depend on the processor.
    """
    if list(found) != list(wanted) or len(found) != len(wanted):
        return f"columns {list(found)}, {len(found)} rows; not {list(wanted)}, {len(wanted)}"
    for column in wanted:
        ours, theirs = found[column], wanted[column]
        if pd.api.types.is_numeric_dtype(theirs) and pd.api.types.is_numeric_dtype(ours):
            same = np.isclose(ours.astype(float), theirs.astype(float), 1e-3, 2e-4, equal_nan=True)
        else:
            same = (ours.astype(str) == theirs.astype(str)).to_numpy() | (
                ours.isna() & theirs.isna()
            ).to_numpy()
        if not same.all():
            row = int(np.argmin(same))
            return f"column {column}, row {row}: {ours.iloc[row]!r}, not {theirs.iloc[row]!r}"
    return ""


if __name__ == "__main__":
    for chosen in sys.argv[1:] or STUDIES:
        write(chosen)
        print(chosen)
