"""The tables of the protocol's record."""

from collections.abc import Mapping, Sequence

import pandas as pd

from mutmeta_lib.reproduction.protocol_data import ProtocolData
from mutmeta_lib.reproduction.protocol_numbers import (
    compared,
    error_rows,
    gain_row,
    second_rows,
    shown,
    whole_rows,
)


def result_tables(
    results: Sequence[Mapping], sizes: Sequence[int], where: Mapping[str, str]
) -> dict[str, pd.DataFrame]:
    """Tables of what `run_seed` gave for every seed; ``where`` names encoder and encoding.

    Histograms of single draws (``ratios``) are kept of the comparison as reported, at one size.
    """
    made = {name: [] for name in ("gains", "ratios", "errors", "whole", "seconds")}
    for target in results[0]["targets"]:
        parts = [result["targets"][target] for result in results]
        here = {**where, "target": target}
        for size in sizes:
            for method, against in compared():
                row, bins = gain_row(parts, size, method, against)
                made["gains"].append(pd.DataFrame([here | row]))
                if size == shown(sizes) and against == "reported":
                    what = {"size": size, "method": method, "against": against}
                    made["ratios"].append(pd.DataFrame(bins).assign(**here, **what))
            made["errors"].append(pd.DataFrame(error_rows(parts, size)).assign(**here))
        made["whole"].append(pd.DataFrame(whole_rows(parts)).assign(**here))
        made["seconds"].append(pd.DataFrame(second_rows(parts)).assign(**here))
    first = [{"seconds": {"initial": result["initial_seconds"]}} for result in results]
    made["seconds"].append(pd.DataFrame(second_rows(first)).assign(**where, target="all"))
    return {name: pd.concat(parts, ignore_index=True) for name, parts in made.items()}


def row_table(data: ProtocolData, runs: Sequence) -> pd.DataFrame:
    """How many rows each part has, how many each run reads, and which were split anew."""

    def parts(read: ProtocolData) -> dict[str, int]:
        found = {"initial": len(read.initial)}
        for name in read.train:
            found[f"{name} train"] = len(read.train[name])
            found[f"{name} test"] = len(read.test[name])
        return found

    made = pd.DataFrame({"rows": parts(data)} | {run.name: parts(run.data) for run in runs})
    made = made.rename_axis("part").reset_index()
    return made.assign(resplit=made["part"].str.split().str[0].isin(data.resplit))


def cut_table(runs: Sequence) -> pd.DataFrame:
    """Where a run is smaller than the public code's, or another one."""
    rows = []
    for run in runs:
        frozen = "frozen, its head trained" if run.frozen else "random start, all of it trained"
        said = {
            "encoder": (frozen, "ProtBERT, all of it trained"),
            "longest text": (f"{run.max_tokens} tokens", "1,024 tokens"),
            "rows of the initial fit": (f"{len(run.data.initial):,}", "all"),
            "epochs of the initial fit": (str(run.setting.initial_epochs), "10"),
            "epochs of meta-training": (str(run.setting.maml_epochs), "30 (later README: 50)"),
            "epochs of fine-tuning": (str(run.setting.finetune_epochs), "5 (later README: 10)"),
            "highest rate, initial fit": (f"{run.setting.initial_peak:g}", "5e-05; frozen 0.003"),
            "highest rate, fine-tuning": (f"{run.setting.finetune_peak:g}", "1e-05; frozen 0.001"),
        }
        for name, part in run.data.train.items():
            said[f"training rows of {name}"] = (f"{len(part):,}", "all")
        rows += [
            {"run": run.name, "what": what, "here": here, "public code": there}
            for what, (here, there) in said.items()
        ]
    return pd.DataFrame(rows)


def rounded(table: pd.DataFrame) -> pd.DataFrame:
    """Numbers to five digits: enough for pages, and small in a record."""
    made = table.copy()
    for column in made.select_dtypes("floating"):
        made[column] = [float(f"{value:.5g}") for value in made[column]]
    return made
