"""Small copies of the public repository's layout, with rows of our own making."""

import csv
import gzip

COLUMNS = ("sequence", "mutation1", "mutation2", "source", "original_feature")


def write_table(folder, id, rows, label, *, flat=False, packed=False):
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
        writer.writerow([*COLUMNS[:3], label, *COLUMNS[3:]])
        for sequence, mutations, value, source, feature in rows:
            first, second = [*mutations, "", ""][:2]
            writer.writerow([sequence, first, second, value, source, feature])
    return path


WILD = "MKTAYIAKQR"


def backwards(position, new):
    """A row's sequence and mutation as the backwards rows have them: the mutant, `new` first."""
    sequence = WILD[: position - 1] + new + WILD[position:]
    return sequence, [f"{new}{position}{WILD[position - 1]}"]
