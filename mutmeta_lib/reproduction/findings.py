"""What tables of measurements hold: counts that an audit of the public repository's files needs.

Each function takes tables (`ReleaseFile`) and returns one tidy table of counts. None of them judges
a row, changes it or leaves it out. What is found in labels is in `label_findings`, what one small
draw of query rows says in `query_draws`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import pandas as pd

from mutmeta_lib.reproduction.release import ReleaseFile, undo
from mutmeta_lib.reproduction.release_text import FATES, release_text

Tables = Mapping[str, ReleaseFile]
Row = tuple[str, str, tuple]
"""Source, sequence and mutations: what tells one row from another."""


def overview(files: Tables) -> pd.DataFrame:
    """Per table: rows, sources, distinct sequences, and how its labels spread."""
    return pd.DataFrame(
        {
            "table": id,
            "rows": len(file),
            "sources": len(set(file.sources)),
            "sequences": len(set(file.sequences)),
            "longest": max(map(len, file.sequences)),
            "several_mutations": sum(len(m) > 1 for m in file.mutations),
            "mean": file.labels.mean(),
            "sd": file.labels.std(),
            "min": file.labels.min(),
            "max": file.labels.max(),
        }
        for id, file in files.items()
    )


def directions(files: Tables) -> pd.DataFrame:
    """Per table and source: is the stated sequence the wild type, or already the mutant?

    Undoing a row puts the last letter of its mutations at their positions. Where a source's rows
    state many sequences (``stated``) and undoing all of them leaves one (``undone``), that one is
    the wild type, and the rows are written backwards. ``agree`` counts rows whose first letters
    are those of the stated sequence: backwards rows pass this check too.
    """
    rows = []
    for id, file in files.items():
        for source, index in by_key(file.sources).items():
            stated = {file.sequences[i] for i in index}
            undone = {undo(file.sequences[i], file.mutations[i]) for i in index}
            rows.append(
                {
                    "table": id,
                    "source": source,
                    "rows": len(index),
                    "agree": sum(
                        all(file.sequences[i][w.position - 1] == w.first for w in file.mutations[i])
                        for i in index
                    ),
                    "stated": len(stated),
                    "undone": len(undone),
                    "backwards": len(stated) > 1 and len(undone) == 1,
                }
            )
    return pd.DataFrame(rows)


def wild_types(file: ReleaseFile, found: pd.DataFrame) -> list[str]:
    """Per row the wild type: the undone sequence where `directions` found backwards rows."""
    here = found[(found["table"] == file.id) & found["backwards"]]
    backwards = set(here["source"])
    return [
        undo(sequence, mutations) if source in backwards else sequence
        for sequence, mutations, source in zip(
            file.sequences, file.mutations, file.sources, strict=True
        )
    ]


def shared(files: Tables, found: pd.DataFrame) -> pd.DataFrame:
    """Per data set with a train and a test part: what of the test part is in the train part.

    ``wild_type_rows`` and ``site_rows`` count test rows whose wild type, or wild type and mutated
    positions, occur in training; ``same_rows`` those with the same variant of the same source.
    """
    rows = []
    for name in dict.fromkeys(file.name for file in files.values()):
        train, test = files.get(f"{name}_train"), files.get(f"{name}_test")
        if train is None or test is None:
            continue
        wild = {part.id: wild_types(part, found) for part in (train, test)}
        sites = {
            part.id: [
                (w, tuple(sorted(m.position for m in mutations)))
                for w, mutations in zip(wild[part.id], part.mutations, strict=True)
            ]
            for part in (train, test)
        }
        seen_wild, seen_sites = set(wild[train.id]), set(sites[train.id])
        seen_rows = set(row_keys(train))
        rows.append(
            {
                "data set": name,
                "test_rows": len(test),
                "sources": len(set(test.sources)),
                "sources_in_train": len(set(test.sources) & set(train.sources)),
                "wild_types": len(set(wild[test.id])),
                "wild_types_in_train": len(set(wild[test.id]) & seen_wild),
                "wild_type_rows": sum(w in seen_wild for w in wild[test.id]),
                "site_rows": sum(s in seen_sites for s in sites[test.id]),
                "same_rows": sum(row in seen_rows for row in row_keys(test)),
            }
        )
    return pd.DataFrame(rows)


def one_sequence_many_sources(files: Tables, found: pd.DataFrame) -> pd.DataFrame:
    """Sequences that are stated for rows of more than one source, per source and table.

    Sources that hold several proteins (literature collections) are left aside: they may well have
    a protein in common with another source. `found` comes from `directions`.
    """
    several = found[(found["stated"] > 1) & ~found["backwards"]]
    collections = set(several["source"])
    sources, counted = defaultdict(set), Counter()
    for file in files.values():
        for sequence, source in zip(file.sequences, file.sources, strict=True):
            if source not in collections:
                sources[sequence].add(source)
                counted[sequence, source, file.id] += 1
    rows = [
        {"starts": s[:10], "length": len(s), "source": source, "table": id, "rows": n}
        for (s, source, id), n in sorted(counted.items())
        if len(sources[s]) > 1
    ]
    return pd.DataFrame(rows, columns=["starts", "length", "source", "table", "rows"])


def concentration(file: ReleaseFile) -> pd.DataFrame:
    """Rows and label spread per stated sequence, the one with most rows first."""
    rows = [
        {
            "length": len(sequence),
            "rows": len(index),
            "share": len(index) / len(file),
            "mean": file.labels[index].mean(),
            "sd": file.labels[index].std(),
            "max": file.labels[index].max(),
        }
        for sequence, index in by_key(file.sequences).items()
    ]
    return pd.DataFrame(rows).sort_values("rows", ascending=False, ignore_index=True)


def text_fates(files: Tables) -> pd.DataFrame:
    """Per table and form of the text: what became of its mutations (see `release_text`)."""
    rows = []
    for id, file in files.items():
        for form in ("spaced", "plain"):
            texts = [
                release_text(sequence, mutations, spaced=form == "spaced").fates
                for sequence, mutations in zip(file.sequences, file.mutations, strict=True)
            ]
            counted = Counter(fate for fates in texts for fate in fates)
            row = {"table": id, "form": form, "rows": len(file)}
            row["rows_as_words"] = sum("as words" in fates for fates in texts)
            rows.append(row | {fate: counted[fate] for fate in FATES})
    return pd.DataFrame(rows)


def row_keys(file: ReleaseFile) -> list[Row]:
    """Source, sequence and mutations of every row."""
    return list(zip(file.sources, file.sequences, file.mutations, strict=True))


def by_key(keys: Sequence[str]) -> dict[str, list[int]]:
    """Key -> indices of the rows that have it, in order of first appearance."""
    groups = defaultdict(list)
    for i, key in enumerate(keys):
        groups[key].append(i)
    return dict(groups)
