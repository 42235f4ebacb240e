"""Whatever a file holds, a ranking ends in a result or in one sentence."""

import io
import random
import zipfile

import numpy as np
import pandas as pd
import pytest

from mutmeta_lib.errors import DataError
from mutmeta_lib.ranking import model, tables
from mutmeta_lib.ranking.sheets import read_sheet, write_sheet

WILD_TYPE = "MKTAYIAKQRQISFVKSHFSRQLEERLGLIE"
TABLE = "mutant,score,sd\nK2R,0.5,0.1\nT3P,-1.5,0.2\nA4G,<0.1,0.1\nI6V,1e-1,0.1\nWT,1,0.1\nI6V,2,\n"
CELLS = ["", "=1+1", "1e400", "-inf", "NaN", "0,5", "1.234,5", "<", ">x", "Δ4", "p.Ala4fs", "½"]
CELLS += ["A4", "A4G:A4V", "A99G", "M1", "0", "-0.0", "1e-320", "9" * 400, '"', "\x00", "\u2028"]
CELLS += ["K2R;T3P", "1e30", "-7", "y5f", "WT", "p.=", "1e-12", "> 3"]


def sheet(tmp_path):
    write_sheet(tmp_path / "x.xlsx", pd.read_csv(io.StringIO(TABLE)))
    return (tmp_path / "x.xlsx").read_bytes()


def malformed(rng, text, workbook):
    """Bytes of a table with one to four faults, and the ending of its name."""
    kind = rng.randrange(4)
    if kind == 0:  # cells
        rows = [row.split(",") for row in text.splitlines()]
        for _ in range(rng.randint(1, 2)):
            row = rng.choice(rows)
            row[rng.randrange(len(row))] = rng.choice(CELLS)
        return "\n".join(map(rng.choice(",;\t|").join, rows)).encode(), ".csv"
    if kind == 1:  # characters
        letters = list(text)
        for _ in range(rng.randint(1, 3)):
            letters[rng.randrange(len(letters))] = rng.choice("\n\r\t,;\"'=<>\x00é\ufeffA1.-")
        return "".join(letters).encode(rng.choice(["utf-8", "utf-16", "utf-8-sig"])), ".csv"
    content = bytearray(workbook if kind == 3 else text.encode())
    for _ in range(rng.randint(1, 2)):
        content[rng.randrange(len(content))] = rng.randrange(256)
    content = content[: rng.randint(0, len(content))] if rng.random() < 0.3 else content
    return bytes(content), ".xlsx" if kind == 3 else rng.choice([".csv", ".csv.gz", ".tsv"])


@pytest.mark.filterwarnings("ignore")
def test_three_hundred_malformed_files_end_in_a_ranking_or_one_sentence(tmp_path):
    rng, workbook, told = random.Random(12), sheet(tmp_path), []
    for number in range(300):
        broken_table = number % 4
        content, ending = malformed(rng, TABLE, workbook)
        table, fasta = tmp_path / f"{number}{ending}", tmp_path / f"{number}.fasta"
        table.write_bytes(content if broken_table else TABLE.encode())
        protein = f">mine x\n{WILD_TYPE}\n"
        fasta.write_bytes(protein.encode() if broken_table else malformed(rng, protein, b"PK")[0])
        try:
            ranking = model.fit(fasta, table, direction=rng.choice(model.DIRECTIONS))
        except DataError as error:
            told.append(str(error))
            continue
        predicted = ranking.predict(["K2A", "T3A"])["prediction"]
        assert np.isfinite(predicted).all(), content
        assert ranking.record()["used"] == len(ranking.left_one_out)
    assert 100 < len(told) < 270
    assert max(map(len, told)) < 1000


def archive(**parts):
    kept = io.BytesIO()
    with zipfile.ZipFile(kept, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in parts.items():
            made.writestr(f"xl/worksheets/{name}.xml", content)
    return kept.getvalue()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (archive(sheet1=b" " * 2_000_000), "unpacks to more than 1 MB"),
        (archive(sheet1='<!DOCTYPE x [<!ENTITY a "b">]><x>&a;</x>'), "defines XML entities"),
        (archive(sheet1='<!DOCTYPE x [<!ENTITY a "b">]><x/>'.encode("utf-16")), "XML entities"),
        (archive(other="<x/>"), "no Excel file"),
        (archive(sheet1="<x>"), "no Excel file"),
        (b"PK\3\4", "no Excel file"),
    ],
)
def test_an_excel_bomb_is_refused(content, told):
    with pytest.raises(DataError, match=told):
        read_sheet(content, limit=1_000_000)


def test_a_sheet_of_far_cells_takes_no_memory():
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    rows = '<row><c r="ZZZ1"><v>1</v></c></row>' * 200
    with pytest.raises(DataError, match="more than 2000000 cells"):
        read_sheet(archive(sheet1=f'<x xmlns="{main}">{rows}</x>'), limit=1_000_000)


@pytest.mark.parametrize("name", ["genome.fasta", "table.csv", "table.csv.gz", "table.xlsx"])
def test_files_that_are_too_large_are_one_sentence(tmp_path, monkeypatch, name):
    import gzip

    monkeypatch.setattr(tables, "MOST_BYTES", 1000)
    monkeypatch.setattr(tables, "MOST_SEQUENCE_BYTES", 1000)
    file, content = tmp_path / name, b"mutant,score\n" + b"K2R,1\n" * 1000
    content = b"PK\3\4" + content if name.endswith("xlsx") else content
    file.write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    fasta, table = (file, None) if name.endswith("fasta") else (WILD_TYPE, file)
    with pytest.raises(DataError, match=r"holds more than 0\.001 MB"):
        model.fit(fasta, table)


def test_a_protein_longer_than_is_read_is_one_sentence(monkeypatch):
    monkeypatch.setattr(tables, "MOST_RESIDUES", 20)
    with pytest.raises(DataError, match="31 residues, and at most 20 are read"):
        model.fit(WILD_TYPE)
