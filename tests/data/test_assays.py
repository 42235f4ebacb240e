import gzip
from dataclasses import replace

import numpy as np
import pytest

from mutmeta_lib.data.assays import (
    PROPERTIES,
    Assay,
    check_table,
    demo_dir,
    read_data_dir,
    read_demo,
    read_manifest,
    read_proteingym,
    read_table,
)
from mutmeta_lib.data.variants import apply_variant, format_variant, parse_variant
from mutmeta_lib.errors import DataError

WT = "MKTAYIAKQR"
MANIFEST = "id,property,protein,target_seq,n_proteins,score_units,sign,doi\n"


def variants(*texts):
    return tuple(map(parse_variant, texts))


def make(**changes):
    given = {
        "id": "a", "protein": "p", "property": "fitness", "wild_type": WT,
        "variants": variants("K2R", "WT"), "scores": [1, 2], "units": "au", "sign": "",
    }  # fmt: skip
    return Assay(**{**given, **changes})


def test_an_assay_owns_its_scores():
    scores = np.array([1.0, 2.0])
    assay = make(scores=scores)
    scores[0] = 9
    assert assay.scores.tolist() == [1, 2]
    assert assay.scores.dtype == np.float64
    assert len(assay) == 2
    with pytest.raises(ValueError, match="read-only"):
        assay.scores[0] = 9


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"property": "speed"}, "not a property"),
        ({"wild_type": "mkt"}, "capitals"),
        ({"wild_type": "MRTAYIAKQR"}, "K2R expects K"),
        ({"scores": [1]}, "one score per variant"),
        ({"scores": [[1, 2]]}, "one score per variant"),
        ({"scores": [1, np.nan]}, "not finite"),
        ({"scores": [1, np.inf]}, "not finite"),
        ({"variants": variants("K2R", "K2R")}, "occurs twice"),
        ({"variants": variants("K2R", "K20R")}, "outside"),
    ],
)
def test_an_invalid_assay_cannot_be_made(changes, says):
    with pytest.raises(DataError, match=says):
        make(**changes)


def test_the_hash_is_of_the_content():
    first = make()
    assert first.sha256 == make(id="b", protein="q", units="x", sign="y", source="z").sha256
    changed = [
        make(wild_type="MKTAYIAKQK"),
        make(variants=variants("K2E", "WT")),
        make(variants=variants("WT", "K2R")),
        make(scores=[1, 2 + 1e-12]),
    ]
    assert len({first.sha256, *(assay.sha256 for assay in changed)}) == 5
    assert replace(first, scores=np.array([1, 3])).sha256 != first.sha256


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def test_a_table_of_ones_own(tmp_path):
    text = "variant,note,ddG\nK2R,x,-1.5\np.[Lys2Glu;Thr3Ala],y,0.25\nWT,z,0\n"
    path = write(tmp_path / "mine.csv", text)
    assay = read_table(
        path, WT, property="stability", mutant_column="variant", score_column="ddG", units="kcal"
    )
    assert (assay.id, assay.protein, assay.units) == ("mine", "mine", "kcal")
    assert [format_variant(v) for v in assay.variants] == ["K2R", "K2E:T3A", "WT"]
    assert assay.scores.tolist() == [-1.5, 0.25, 0]


BAD_ROWS = [
    ("K2R,1\nT3A,\n", 3, "score", "empty; fill it in or leave .*--drop missing"),
    ("K2R,1\nT3A,NA\n", 3, "score", "missing"),
    ("K2R,1\nT3A,high\n", 3, "score", "not a number"),
    ("K2R,1\nT3A,inf\n", 3, "score", "infinite"),
    ("K2R,1\nK2R,2\n", 3, "mutant", "occurs twice .first in row 2."),
    ("K2R,1\nA3T,2\n", 3, "mutant", "A3T expects A at position 3, but the wild type has T"),
    ("K2R,1\nT300A,2\n", 3, "mutant", "outside the wild type .10 residues.; check the numbering"),
    ("K2R,1\na24g,2\n", 3, "mutant", "write A24G"),
    ("K2R,1\nT3*,2\n", 3, "mutant", "stop codon, .*--drop nonsense"),
    ("K2R,1\nT3X,2\n", 3, "mutant", "unknown letter 'X'"),
    ("K2R,1\nT3T,2\n", 3, "mutant", "synonymous change, .*--drop synonymous"),
    ("K2R,1\nT3A:T3S,2\n", 3, "mutant", "same position 3"),
    ("K2R,1\n,2\n", 3, "mutant", "empty"),
    ("K2R,1\n\nT3A,2\n", 3, None, "row is empty"),
    ("K2R,1\nT3A,2,3\n", 3, None, "3 cells"),
    ("K2R,1\nT3A\n", 3, None, "1 cells"),
    ("", None, None, "no rows"),
]


@pytest.mark.parametrize(("body", "row", "column", "says"), BAD_ROWS)
def test_bad_rows_of_a_table_are_located(tmp_path, body, row, column, says):
    path = write(tmp_path / "bad.csv", "mutant,score\n" + body)
    with pytest.raises(DataError, match=says) as caught:
        read_table(path, WT, property="fitness")
    assert (caught.value.file, caught.value.row, caught.value.column) == (str(path), row, column)


@pytest.mark.parametrize(("body", "row", "column", "says"), BAD_ROWS)
def test_bad_rows_of_a_data_directory_are_located(tmp_path, body, row, column, says):
    write(tmp_path / "MANIFEST.csv", MANIFEST + f"A,fitness,P,{WT},1,au,up,\n")
    path = write(tmp_path / "fitness" / "A.csv.gz", "mutant,score\n" + body)
    with pytest.raises(DataError, match=says) as caught:
        read_data_dir(tmp_path)
    assert (caught.value.file, caught.value.row, caught.value.column) == (str(path), row, column)


def test_a_column_is_missing(tmp_path):
    path = write(tmp_path / "bad.csv", "mutations,score\nK2R,1\n")
    told = "found: mutations, score.*did you mean 'mutations'.*--mutant-column.*mutant_column="
    with pytest.raises(DataError, match=told) as caught:
        read_table(path, WT, property="fitness")
    assert (caught.value.row, caught.value.column) == (1, "mutant")


@pytest.mark.parametrize("name", ["sequence", "mutated_sequence", "variant_aa"])
def test_a_table_of_sequences(tmp_path, name):
    text = f"{name},score\nMRTAYIAKQR,1\nMKTAYIAKQR,2\nMRTAYIAKQE,3\n"
    path = write(tmp_path / "a.csv", text)
    options = {"mutant_column": name} if name == "variant_aa" else {}
    assay = read_table(path, WT, property="fitness", **options)
    assert [format_variant(v) for v in assay.variants] == ["K2R", "WT", "K2R:R10E"]
    assert assay.scores.tolist() == [1, 2, 3]


def test_a_mistyped_column_of_mutations_is_not_replaced_by_sequences(tmp_path):
    path = write(tmp_path / "a.csv", f"hgvs_pro,sequence,score\np.Lys2Arg,{WT},1\n")
    with pytest.raises(DataError, match=r"no column 'hgvs_prot'.*did you mean 'hgvs_pro'"):
        read_table(path, WT, property="fitness", mutant_column="hgvs_prot")


def test_rows_left_out_are_counted(tmp_path):
    text = "mutant,score\nK2K,1\nK2R,2\np.Thr3=,3\nA4*,0\nT3A,NA\n"
    path = write(tmp_path / "a.csv", text)
    with pytest.raises(DataError, match="synonymous change"):
        read_table(path, WT, property="fitness")
    drop = ["synonymous", "nonsense", "missing"]
    assay = read_table(path, WT, property="fitness", drop=drop)
    assert [format_variant(v) for v in assay.variants] == ["K2R"]
    assert assay.scores.tolist() == [2]
    assert assay.left_out == {"synonymous": 2, "nonsense": 1, "missing": 1}
    path = write(tmp_path / "b.csv", "mutant,score\nK2K,1\n")
    with pytest.raises(DataError, match="no rows to read but 1 left out"):
        read_table(path, WT, property="fitness", drop=drop)


def test_the_reader_stops_at_the_first_of_all_problems(tmp_path):
    path = write(tmp_path / "a.csv", "mutant,score\nK2R,1\nA2G,1\nK2R,2\nT3G,x\n")
    rows = check_table(path, WT)
    assert [(p.file, p.row) for p in rows.problems] == [(str(path), row) for row in (3, 4, 5)]
    with pytest.raises(DataError) as caught:
        read_table(path, WT, property="stability")
    assert str(caught.value) == str(rows.problems[0])


GYM = "mutant,mutated_sequence,DMS_score,DMS_score_bin\n"
REFERENCE = "DMS_id,UniProt_ID,target_seq,coarse_selection_type,jo\n"


@pytest.mark.parametrize(
    ("kind", "property"),
    [
        ("Activity", "fitness"),
        ("Binding", "fitness"),
        ("OrganismalFitness", "fitness"),
        ("Stability", "stability"),
        ("Expression", "expression"),
    ],
)
def test_an_assay_of_proteingym(tmp_path, kind, property):
    reference = write(tmp_path / "reference.csv", REFERENCE + f"P_2020,P_X,{WT},{kind},10.1/x\n")
    path = write(tmp_path / "P_2020.csv", GYM + "K2R,MRTAYIAKQR,-0.5,0\n")
    assay = read_proteingym(path, reference)
    assert (assay.id, assay.protein, assay.property) == ("P_2020", "P_X", property)
    assert (assay.source, assay.scores.tolist()) == ("10.1/x", [-0.5])


@pytest.mark.parametrize(
    ("reference", "csv", "says"),
    [
        (f"Q_2020,P_X,{WT},Activity,\n", "K2R,MRTAYIAKQR,1,1\n", "'P_2020' is there 0 times"),
        (f"P_2020,P_X,{WT},Taste,\n", "K2R,MRTAYIAKQR,1,1\n", "'Taste' is not a known selection"),
        ("P_2020,P_X,MK-T,Activity,\n", "K2R,MRTAYIAKQR,1,1\n", "'-' at position 3"),
        (f"P_2020,P_X,{WT},Activity,\n", "K2R,MKTAYIAKQR,1,1\n", "not the wild type with K2R"),
        (f"P_2020,P_X,{WT},Activity,\n", "K2R,MRTAYIAKQR,,1\n", "column 'DMS_score': .*empty"),
    ],
)
def test_bad_files_of_proteingym(tmp_path, reference, csv, says):
    reference = write(tmp_path / "reference.csv", REFERENCE + reference)
    path = write(tmp_path / "P_2020.csv", GYM + csv)
    with pytest.raises(DataError, match=says):
        read_proteingym(path, reference)


def test_a_folder_of_proteingym(tmp_path):
    names = ("P_2020", "TADBP_HUMAN_Bolognesi_2019")
    kinds = dict(zip(names, ("Stability", "Activity"), strict=True))
    reference = "".join(f"{name},P_X,{WT},{kinds[name]},\n" for name in names)
    write(tmp_path / "DMS_substitutions.csv", REFERENCE + reference)
    for name in names:
        write(tmp_path / f"DMS/{name}.csv", GYM + "K2R,MRTAYIAKQR,-0.5,0\n")
    read = {assay.id: assay for assay in read_data_dir(tmp_path)}
    assert tuple(read) == names
    assert read["P_2020"].sign == "higher = better"
    assert "toxic" in read["TADBP_HUMAN_Bolognesi_2019"].sign
    assert [a.id for a in read_data_dir(tmp_path, ids=["P_2020"])] == ["P_2020"]
    assert [a.id for a in read_data_dir(tmp_path, properties=["stability"])] == ["P_2020"]
    with pytest.raises(DataError, match="no data set 'Q_2020'; see the names"):
        read_data_dir(tmp_path, ids=["Q_2020"])
    write(tmp_path / "DMS/other.csv", GYM + "K2R,MRTAYIAKQR,-0.5,0\n")
    with pytest.raises(DataError, match="'other' is there 0 times"):
        read_data_dir(tmp_path)


@pytest.fixture
def data_dir(tmp_path):
    write(
        tmp_path / "MANIFEST.csv",
        MANIFEST
        + f"A,fitness,P,{WT},1,au,up,10.1/a\n"
        + "B,stability,2 proteins,,2,kcal/mol,up,10.1/b\n"
        + f"C,solubility,P,{WT},1,au,flipped,\n",
    )
    write(tmp_path / "fitness" / "A.csv", "mutant,score\nK2R,1\nT3A,2\n")
    write(
        tmp_path / "stability" / "B.csv.gz",
        "protein,wild_type_sequence,mutant,mutated_sequence,score\n"
        "Q,MKXT,M1A,AKXT,1\nR,GGW,G2A,GAW,2\nQ,MKXT,K2R,MRXT,3\n",
    )
    write(tmp_path / "solubility" / "C.csv", "mutant,mutated_sequence,score\nK2R,MRTAYIAKQR,5\n")
    return tmp_path


def test_a_data_directory(data_dir):
    assays = read_data_dir(data_dir)
    assert [a.id for a in assays] == ["A", "B/Q", "B/R", "C"]
    assert [a.protein for a in assays] == ["P", "Q", "R", "P"]
    assert [a.wild_type for a in assays] == [WT, "MKXT", "GGW", WT]
    assert assays[1].scores.tolist() == [1, 3]
    assert (assays[3].sign, assays[0].source, assays[3].source) == ("flipped", "10.1/a", "")


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ({"ids": ["A"]}, ["A"]),
        ({"ids": ["C", "A"]}, ["A", "C"]),
        ({"ids": ["B"]}, ["B/Q", "B/R"]),
        ({"ids": ["B/R", "A"]}, ["A", "B/R"]),
        ({"properties": ["stability", "solubility"]}, ["B/Q", "B/R", "C"]),
        ({"ids": ["A", "B"], "properties": ["stability"]}, ["B/Q", "B/R"]),
        ({"ids": []}, []),
    ],
)
def test_selection(data_dir, selection, expected):
    assert [a.id for a in read_data_dir(data_dir, **selection)] == expected


@pytest.mark.parametrize(
    ("selection", "says"),
    [
        ({"ids": ["D"]}, "no data set 'D'"),
        ({"ids": ["B/Z"]}, "no protein 'B/Z'"),
        ({"ids": ["A/P"]}, "no protein 'A/P'"),
        ({"properties": ["speed"]}, "'speed' is not a property"),
    ],
)
def test_a_selection_of_what_is_not_there(data_dir, selection, says):
    with pytest.raises(DataError, match=says):
        read_data_dir(data_dir, **selection)


@pytest.mark.parametrize(
    ("rows", "row", "column", "says"),
    [
        ("Q,MKT,K2R,1\nQ,MKA,K2A,1\n", 3, "wild_type_sequence", "another wild type than in row 2"),
        ("Q,MKT,K2R,1\nR,mk,K2A,1\n", 3, "wild_type_sequence", "capitals"),
        (",MKT,K2R,1\n", 2, "protein", "no name"),
        ("Q,MKT,K2R,1\nR,MKA,K2A,1\nQ,MKT,K2R,2\n", 4, "mutant", r"\(first in row 2\)"),
    ],
)
def test_bad_collections(data_dir, rows, row, column, says):
    write(data_dir / "stability" / "B.csv.gz", "protein,wild_type_sequence,mutant,score\n" + rows)
    with pytest.raises(DataError, match=says) as caught:
        read_data_dir(data_dir)
    assert (caught.value.row, caught.value.column) == (row, column)


def test_a_file_that_the_manifest_does_not_name_is_told(data_dir, recwarn):
    read_data_dir(data_dir)
    assert not recwarn.list
    write(data_dir / "fitness" / "D.csv.gz", "mutant,score\nK2R,1\n")
    write(data_dir / "fitness" / "B.csv", "mutant,score\nK2R,1\n")
    with pytest.warns(UserWarning, match=r"does not name fitness/B\.csv, fitness/D\.csv\.gz; not"):
        assays = read_data_dir(data_dir)
    assert len(assays) == 4


def test_rows_of_a_data_directory_are_left_out_on_request(data_dir):
    write(data_dir / "fitness" / "A.csv", "mutant,score\nK2R,1\nT3=,2\n")
    with pytest.raises(DataError, match="synonymous"):
        read_data_dir(data_dir)
    first, *others = read_data_dir(data_dir, drop=["synonymous"])
    assert (len(first), first.left_out) == (1, {"synonymous": 1})
    assert all(assay.left_out == {} for assay in others)


def test_a_file_is_missing(data_dir):
    (data_dir / "fitness" / "A.csv").unlink()
    with pytest.raises(DataError, match="does not exist"):
        read_data_dir(data_dir)
    assert len(read_data_dir(data_dir, ids=["C"])) == 1


def test_the_demo_data():
    assays = read_demo()
    assert [a.id for a in assays] == read_manifest(demo_dir())["id"].tolist()
    assert {a.property for a in assays} == set(PROPERTIES) - {"expression"}
    assert len({a.sha256 for a in assays}) == len(assays) == 75
    assert {a.protein for a in assays} == {"GB1", "Abeta42", "TDP-43 290-373"}
    assert all(a.units and a.sign and a.source for a in assays)


def test_demo_scans_on_two_backgrounds_agree_where_they_meet():
    """A double mutant is one molecule: both scans that hold it must give it one score."""
    scores, met = {}, 0
    for assay in read_demo():
        for variant, score in zip(assay.variants, assay.scores, strict=True):
            key = (assay.source, apply_variant(variant, assay.wild_type))
            met += key in scores
            assert scores.setdefault(key, score) == score
    assert met > 500
