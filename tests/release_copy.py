"""Small copies of the public repository's layout, with rows of our own making."""

import csv
import gzip
import re
from pathlib import Path

import numpy as np

from mutmeta_lib.data.variants import AMINO_ACIDS
from mutmeta_lib.reproduction.released import LABELS

ROOT = Path(__file__).parents[1]
COLUMNS = ("sequence", "mutation1", "mutation2", "mutation3", "source", "original_feature")
WILD, OTHER = "MKTAYIAKQR", "MSTNPKPQRKTKRNT"


def named_on_pages(record):
    """The numbers of a record that the book's pages name."""
    pages = [page.read_text(encoding="utf-8") for page in sorted(ROOT.glob("*/*.md"))]
    found = {name for page in pages for name in re.findall(rf"`{record}@full (\w[^`]*)`", page)}
    assert found
    return found


def write_table(folder, id, rows, label=None, *, flat=False, packed=False):
    """Write rows of (sequence, mutations, label, source, feature) as one table of the release."""
    name, _, part = id.rpartition("_")
    parent = "raw_dataset" if part == "raw" else "preprocess_data"
    stem = name if part == "raw" else id
    path = folder / (f"{parent}__{stem}.csv" if flat else f"{parent}/{stem}.csv")
    path.parent.mkdir(parents=True, exist_ok=True)
    if packed:
        path = path.with_name(path.name + ".gz")
    with (gzip.open if packed else open)(path, "wt", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow([*COLUMNS, label or LABELS[name]])
        for sequence, mutations, value, source, feature in rows:
            writer.writerow([sequence, *[*mutations, "", "", ""][:3], source, feature, value])
    return path


def backwards(position, new):
    """A row's sequence and mutation as the backwards rows have them: the mutant, `new` first."""
    sequence = WILD[: position - 1] + new + WILD[position:]
    return sequence, [f"{new}{position}{WILD[position - 1]}"]


def toy_release(folder, rows=60, seed=0):
    """What the protocol reads: three targets, one without a training file, and the initial fit."""
    rng = np.random.default_rng(seed)

    def table(wild):
        made = []
        for _ in range(rows):
            position = int(rng.integers(1, len(wild)))
            old = wild[position]
            new = rng.choice([a for a in AMINO_ACIDS if a != old])
            made.append((wild, [f"{old}{position + 1}{new}"], rng.standard_normal(), "s", "f"))
        return made

    for name, wild in (("combined_ddG", WILD), ("fireprot_dTm", WILD), ("binding_affinity", OTHER)):
        for part in ("train", "test"):
            write_table(folder, f"{name}_{part}", table(wild))
    write_table(folder, "soluprotmut_solubility_test", table(OTHER))
    return folder
