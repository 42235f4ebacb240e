"""What leaves: the list as csv or Excel file, suggestions as FASTA, the record beside the list."""

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from mutmeta_lib.data.variants import apply_variant, parse_variant
from mutmeta_lib.errors import DataError
from mutmeta_lib.ranking.sheets import write_sheet
from mutmeta_lib.records.files import layout, plain, replacing

if TYPE_CHECKING:
    from mutmeta_lib.ranking.model import Ranking


def harmless(value: object) -> object:
    """A cell that no spreadsheet runs as a formula; numbers stay numbers.

    >>> harmless("=1+1"), harmless("A4G"), harmless(-1.5)
    ("'=1+1", 'A4G', -1.5)
    """
    risky = isinstance(value, str) and value.lstrip().startswith(("=", "+", "-", "@"))
    return f"'{value}" if risky else value


def write_table(path: str | Path, table: pd.DataFrame) -> None:
    """Write a table as csv or, by its ending, xlsx."""
    path = Path(path)
    if path.suffix.lower() not in (".csv", ".xlsx"):
        raise DataError("the list is written as csv or xlsx", "end its name on one", file=path)
    safe = table.rename(columns=harmless)
    for column in safe.select_dtypes(exclude="number"):
        safe[column] = safe[column].map(harmless)
    with replacing(path) as temporary:
        if path.suffix.lower() == ".xlsx":
            write_sheet(temporary, safe)
        else:
            safe.to_csv(temporary, index=False, lineterminator="\n")


def write_fasta(path: str | Path, ranking: "Ranking", chosen: pd.DataFrame) -> None:
    """Write the mutated sequences of chosen variants."""
    parts = []
    for mutant in chosen["mutant"]:
        sequence = apply_variant(parse_variant(mutant), ranking.wild_type)
        parts.append(f">{ranking.name}_{mutant.replace(':', '_')}\n")
        parts.append("\n".join(textwrap.wrap(sequence, 60)) + "\n")
    with replacing(path) as temporary:
        temporary.write_text("".join(parts), encoding="utf-8", newline="")


def write_record(path: str | Path, ranking: "Ranking", candidates: str) -> None:
    """Write the record of a list, as JSON."""
    told = ranking.record() | {"candidates": plain(Path(candidates).name)}
    with replacing(path) as temporary:
        temporary.write_text(layout(told) + "\n", encoding="utf-8", newline="")
