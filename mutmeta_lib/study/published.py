"""Published Spearman correlations on the assays of a list, as tables to set results beside.

A folder holds the files below: ProteinGym's (Notin et al., NeurIPS 2023) and, as one csv table,
FSFP's (Zhou et al., doi:10.1038/s41467-024-49798-6). No protocol is ours: `PROTOCOLS`. With a
column of clusters, a table can go to `estimates.estimate`.
"""

from collections.abc import Collection, Sequence
from pathlib import Path

import pandas as pd

from mutmeta_lib.data.tables import parse_numbers, read_columns
from mutmeta_lib.errors import DataError

REFERENCE = "ProteinGym_DMS_substitutions.csv"
ZERO_LABEL = "ProteinGym_zero_shot_Spearman_DMS_level.csv"
SUPERVISED = "ProteinGym_supervised_Spearman_DMS_level_fold_{}_5.csv"
FEW_SHOT = "FSFP_few_shot_spearmanr.csv"
ESM2 = tuple(f"ESM2 ({size})" for size in ("8M", "35M", "150M", "650M", "3B", "15B"))
MODELS = (*ESM2, "Site-Independent", "GEMME", "SaProt (650M)", "VenusREM")
PROTOCOLS = {
    "zero_label": "No label. All variants are scored, multiple mutants too where ProteinGym has "
    "them. GEMME, VenusREM and Site-Independent read alignments, SaProt and VenusREM structures.",
    "few_shot": "ProteinGym v0.1, single mutants as labels, all others scored, mean of some draws. "
    "FSFP meta-trains for each target, on assays of the two most similar proteins (homologues, if "
    "there are any) and on scores that GEMME gives the target's variants from an alignment.",
    "supervised": "Five-fold cross-validation: 80 % of an assay's single mutants are labels. In a "
    "random split nearly every site of the test fold has some.",
}
"""Table -> how its numbers were made, where that differs from ours."""


def zero_label(
    folder: str | Path, ids: Sequence[str], turned: Collection[str] = ()
) -> pd.DataFrame:
    """Correlations of `MODELS` without a label: assay, model, spearman, ``singles``.

    ``singles`` says whether ProteinGym's assay has single mutants alone, as ours. Correlations of
    the ids in ``turned``, whose scores have the other sign here, change theirs.
    """
    table = _wide(Path(folder) / ZERO_LABEL, "DMS ID", MODELS, ids)
    table.loc[table["assay"].isin(turned), "spearman"] *= -1
    known = read_columns(Path(folder) / REFERENCE, ["DMS_id", "includes_multiple_mutants"])
    single = {key: value.lower() == "false" for key, value in zip(*known.values(), strict=True)}
    return table.assign(singles=table["assay"].map(single))


def supervised(folder: str | Path, ids: Sequence[str], split: str = "random") -> pd.DataFrame:
    """Correlations of Kermut and ProteinNPT, which have most of an assay's labels.

    ``split`` is ProteinGym's: random, modulo or contiguous.
    """
    models = ("Kermut", "ProteinNPT", "One-Hot Encodings")
    return _wide(Path(folder) / SUPERVISED.format(split), "DMS_id", models, ids)


def few_shot(folder: str | Path, ids: Sequence[str]) -> pd.DataFrame:
    """FSFP's table on those of ``ids`` that it has: assay, model, method, shots, spearman, old_id.

    Methods are FSFP, Ridge and Zero-Shot, of ESM-1v, ESM2 (650M), SaProt and GEMME.
    """
    path = Path(folder) / FEW_SHOT
    texts = ["DMS_id_v01", "model", "method"]
    table = pd.DataFrame(read_columns(path, [*texts, "train_size", "mean"]))
    for name, column in (("shots", "train_size"), ("spearman", "mean")):
        table[name] = parse_numbers(table[column], file=path, column=column)
    found = same_assay(table["DMS_id_v01"].unique(), ids)
    table = table.assign(assay=table["DMS_id_v01"].map(found), shots=table["shots"].astype(int))
    kept = table.dropna(subset="assay").rename(columns={"DMS_id_v01": "old_id"})
    return kept[["assay", "model", "method", "shots", "spearman", "old_id"]].reset_index(drop=True)


def same_assay(old: Sequence[str], new: Sequence[str]) -> dict[str, str]:
    """Ids of ProteinGym v0.1 -> ids of v1, of those that are alike.

    Two are if they name one protein and each word of the shorter fits one of the longer, whole or
    as its beginning: version 1 moved the year and spelt words out. Who fits several is left out.

    >>> same_assay(["P_X_Lee_bind_2020", "Q_X_Lee_2020"], ["P_X_Lee_2020_binding", "Q_X_Lee_2021"])
    {'P_X_Lee_bind_2020': 'P_X_Lee_2020_binding'}
    """

    def alike(one: str, other: str) -> bool:
        few, many = sorted((one.lower().split("_"), other.lower().split("_")), key=len)
        fits = all(any(b.startswith(a) or a.startswith(b) for b in many) for a in few)
        return fits and few[:2] == many[:2]

    found = {one: [other for other in new if alike(one, other)] for one in old}
    return {one: others[0] for one, others in found.items() if len(others) == 1}


def _wide(path: Path, key: str, models: Sequence[str], ids: Sequence[str]) -> pd.DataFrame:
    """A table of an assay a row and a model a column, as rows of assay, model and spearman."""
    columns = read_columns(path, [key, *models])
    if missing := sorted(set(ids) - set(columns[key])):
        raise DataError(f"there is no assay '{missing[0]}'", "name ProteinGym's", file=path)
    values = {name: parse_numbers(columns[name], file=path, column=name) for name in models}
    table = pd.DataFrame(values, index=pd.Index(columns[key], name="assay")).loc[list(ids)]
    return table.reset_index().melt("assay", var_name="model", value_name="spearman")
