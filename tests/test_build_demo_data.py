"""The bundled data are what the script makes of the wheel, byte for byte."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import build_demo_data as script
import pytest

from mutmeta_lib.data.folders import demo_dir, read_data_dir
from mutmeta_lib.data.variants import format_variant, parse_variant


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    if given := os.environ.get("MUTMETA_MAVENN_WHEEL"):
        return Path(given)
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--retries=0", "--timeout=10", "--quiet", "--dest", folder, "mavenn==1.1.4"]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode:
        pytest.skip("the wheel of mavenn 1.1.4 cannot be downloaded; set MUTMETA_MAVENN_WHEEL")
    return next(folder.glob("*.whl"))


@pytest.mark.network
def test_the_script_rebuilds_every_byte(wheel):
    rebuilt = {name: text.encode() for name, text in script.build(wheel).items()}
    bundled = {
        path.relative_to(demo_dir()).as_posix(): path.read_bytes()
        for path in demo_dir().rglob("*")
        if path.is_file()
    }
    assert sorted(bundled) == sorted(rebuilt)
    assert [name for name in bundled if bundled[name] != rebuilt[name]] == []
    assert sum(map(len, bundled.values())) < 2_000_000


def test_another_wheel_is_refused(tmp_path):
    other = tmp_path / "mavenn-1.1.4-py3-none-any.whl"
    other.write_bytes(b"PK")
    with pytest.raises(SystemExit, match="sha256 differs"):
        script.build(other)


def test_double_mutants_are_rows_of_two_scans_and_a_site_keeps_the_most_measured():
    texts = {"A1C:D2E": 1.0, "A1C:D2F": 2.0, "A1G:D2E": 3.0, "A1G:D2F": 4.0, "A1G:K3R": 0.0}
    scans = script.by_background({parse_variant(text): score for text, score in texts.items()})
    told = {str(b): {format_variant(v): s for v, s in scan.items()} for b, scan in scans.items()}
    assert told["A1C"] == {"D2E": 1.0, "D2F": 2.0}
    assert told["D2E"] == {"A1C": 1.0, "A1G": 3.0}
    # Of D2E and D2F, measured as often, the first letter.
    assert list(map(str, script.one_per_site(scans))) == ["A1G", "D2E", "K3R"]


def test_the_card_counts_what_the_data_hold():
    with open(demo_dir() / "SOURCES.csv", newline="") as handle:
        rows = {row["source"]: row for row in csv.DictReader(handle)}
    assays = read_data_dir()
    assert sum(int(row["assays"]) for row in rows.values()) == len(assays)
    for name, row in rows.items():
        sizes = [len(assay) for assay in assays if assay.id.startswith(name)]
        assert (int(row["assays"]), int(row["rows in the assays"])) == (len(sizes), sum(sizes))
        left = [int(v) for k, v in row.items() if k.endswith("dropped") or k.endswith("kept")]
        assert sum(left) == int(row["in the wheel"])


def test_signs_point_the_way_the_card_says():
    """Facts of protein chemistry that hold only with the signs as they are."""
    assays = {assay.id: assay for assay in read_data_dir()}

    def mean(assay, chosen):
        scores = [s for v, s in zip(assay.variants, assay.scores, strict=True) if chosen(v[0])]
        return sum(scores) / len(scores)

    # Proline breaks helices and strands.
    stability = assays["GB1_NISTHAL2019_on_WT"]
    assert mean(stability, lambda s: s.mutant == "P") < mean(stability, lambda s: s.mutant != "P")
    # Charge in the hydrophobic core of Abeta42 (residues 17-21, 29-42) slows nucleation.
    abeta, core = assays["ABETA42_SEUMA2021_on_WT"], {*range(17, 22), *range(29, 43)}
    charged = mean(abeta, lambda s: s.position in core and s.mutant in "DEKR")
    assert charged > mean(abeta, lambda s: s.position not in core)
    # Hydrophobic changes of TDP-43 reduce toxicity (Bolognesi et al. 2019).
    tdp43 = assays["TDP43_BOLOGNESI2019_on_WT"]
    assert mean(tdp43, lambda s: s.mutant in "ILVFWM") > mean(tdp43, lambda s: s.mutant in "DEKR")
