"""Small runs of every experiment on bundled data, and the tables they gave: `tests/golden`.

``python tests/golden_studies.py`` writes the tables again. A change of a number that is meant says
why in its commit; any other is a fault.
"""

import json
import sys
from functools import partial
from pathlib import Path

import pandas as pd

from mutmeta_lib.reproduction.protocol import protocol_experiment
from mutmeta_lib.reproduction.protocol_run import Protocol
from mutmeta_lib.reproduction.speed import Question, speed
from mutmeta_lib.study.run import run
from mutmeta_lib.study.study import Study, grid

read = partial(grid, encoder="tiny")
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
            "shots": (0, 10), "adapt_steps": 2, "validate_every": 1, "solved_steps": 2}  # fmt: skip
WHOLE = {"ids": IDS, **OUTER, "seeds": 1, "n_folds": 3, "inner_lr": 0.01, "meta_lr": 1e-3,
         "adapt_steps": 2, "labels": "measured", "reads": read(depth="all")}  # fmt: skip
CORE = ("maml", "multitask", "finetune", "maml_1", "ridge", "onehot", "r2d2", "fomaml")
DEPTHS = read(depth=["raw head", "head", "last-1"], max_tokens=32)
RATES = ((0.03, 5e-4), (0.01, 1e-4))
STUDIES = {
    "few_shot": [
        Study(**WHOLE, shots=(0, 5), decided_at=5, max_query=12, first_order=True, folds=(0, 1),
              methods=(*CORE[:3], "ridge", "gp", "blosum", "mean")),
    ],
    "transfer": [
        Study(**TRANSFER, regime=regime, properties=("solubility",), methods=CORE,
              by_error=CORE[:3], reads=read())
        for regime in ("proteins", "properties", "related")
    ],
    "transfer_encodings": [Study(**TRANSFER, reads=read(encoding=["separator", "mutant"]),
                                 methods=("maml", "finetune", "ridge"))],
    "transfer_depth": [Study(**TRANSFER, reads=DEPTHS, outer_rates=RATES, tuning_assays=1,
                             methods=("fomaml", "finetune"), by_error=("fomaml",))],
    "timing": [Study(**WHOLE, folds=(0,), shots=(5, 10), epochs=1, max_query=12,
                     methods=("maml", "maml_fixed", "finetune_epochs"))],
    "swap": [Study(**(TRANSFER | {"per_protein": 2}), regime="around", share=0.25,
                   test_ids=("GB1_NISTHAL2019_on_WT",), methods=("maml", "ridge"),
                   reads=read(swap=["same", "noise 0.3"]))],
    "held_out": [
        Study(per_protein=1, seeds=1, regime=regime, methods=("ridge", "mlp"), adapt_steps=2,
              reads=read(encoding=["mutant", "separator"]))
        for regime in ("variants", "sites")
    ],
    "encodings": [
        Study(ids=IDS[:3], regime=regime, seeds=1, methods=("joint",), labels="measured",
              reads=read(encoding=["separator", "mutant"], depth="all"), meta_steps=2,
              tasks_per_step=4, support=4, meta_lr=1e-3, max_query=15)
        for regime in ("variants", "sites")
    ],
    "meta_training": [Study(**WHOLE, shots=(), folds=(0,),
                            methods=("maml", "fomaml", "multitask"))],
}  # fmt: skip
SPEED = Study(
    **OUTER, reads=read(), per_protein=1, n_folds=3, folds=(0,), seeds=1, max_query=20, epochs=1
)
EXPERIMENTS = {
    "speed": lambda: speed(
        SPEED, Question((5, 10), 3, size_ids=("GB1_NISTHAL2019_on_WT",), sizes=(5, 20))
    ),
    "protocol": lambda: protocol_experiment(
        "demo", Protocol(max_tokens=120, sizes=(4,), draws=2, seeds=1, initial_epochs=1,
                         finetune_epochs=1, maml_epochs=1, inner_steps=1, time_rows=()),
    ),
}  # fmt: skip


def tables(name: str) -> dict[str, pd.DataFrame]:
    """The tables of one of `STUDIES` or of `EXPERIMENTS`, without what depends on the clock."""
    if name in STUDIES:
        found = run(*STUDIES[name])
        made = {"results": found.rows, "choices": found.choices, "history": found.history}
        made = {key: varied(table).round(5) for key, table in made.items() if len(table)}
    else:
        record = EXPERIMENTS[name]()
        made = {key: record.table(key) for key in record.tables}
    kept = {}
    for key in sorted(made.keys() - CLOCKED):
        timed = made[key].astype(str).apply(lambda column: column.str.contains("second"))
        columns = [column for column in made[key] if "second" not in column]
        kept[key] = made[key].loc[~timed.any(axis=1), columns].reset_index(drop=True)
    return kept


def varied(table: pd.DataFrame) -> pd.DataFrame:
    """The table without columns that say one thing, or what the assay says already."""
    told = ("protein", "role", "cluster", "n_query", "mae", "relative_mse")
    return table[[c for c in table if c not in told and table[c].astype(str).nunique() > 1]]


def plain(table: pd.DataFrame) -> dict[str, list]:
    """A table as JSON values: what is not a number is null."""
    return {"columns": list(table), "rows": json.loads(table.to_json(orient="values"))}


def write(name: str) -> None:
    """Write the tables of one study, a row a line."""
    made = {key: plain(table) for key, table in tables(name).items()}
    lines = (
        f'{json.dumps(key)}: {{"columns": {json.dumps(table["columns"])}, "rows": [\n'
        + ",\n".join(map(json.dumps, table["rows"]))
        + "]}"
        for key, table in made.items()
    )
    (FOLDER / f"{name}.json").write_text("{" + ",\n".join(lines) + "}\n", encoding="utf-8")


if __name__ == "__main__":
    for chosen in sys.argv[1:] or [*STUDIES, *EXPERIMENTS]:
        write(chosen)
        print(chosen)
