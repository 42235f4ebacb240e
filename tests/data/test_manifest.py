import pytest

from mutmeta_lib.data.manifest import PROPERTIES, check_property, read_manifest
from mutmeta_lib.errors import DataError

HEADER = "id,property,protein,target_seq,n_proteins,score_units,sign,doi\n"
GOOD = "A,fitness,P,MKT,1,au,higher = better,10.1/x\n"


def write(tmp_path, text):
    (tmp_path / "MANIFEST.csv").write_text(text)
    return tmp_path


def test_a_manifest_is_read(tmp_path):
    table = read_manifest(write(tmp_path, HEADER + GOOD + "B,stability,Q,,3,,,\n"))
    assert table["id"].tolist() == ["A", "B"]
    assert table["n_proteins"].tolist() == [1, 3]
    assert table["doi"].tolist() == ["10.1/x", ""]
    assert table["target_seq"].tolist() == ["MKT", ""]


def test_the_doi_is_optional(tmp_path):
    header, row = (line.rsplit(",", 1)[0] + "\n" for line in (HEADER, GOOD))
    assert read_manifest(write(tmp_path, header + row))["doi"].tolist() == [""]


@pytest.mark.parametrize(
    ("text", "row", "column", "says"),
    [
        (HEADER.replace("target_seq", "seq") + GOOD, 1, "target_seq", "no column 'target_seq'"),
        ("id,doi\nA,10.1/x\n", 1, "property", "'property' and no 'protein' and .*'sign'"),
        (HEADER + GOOD + GOOD, 3, "id", "'A' is also in row 2"),
        (HEADER + GOOD.replace("A,", "../A,", 1), 2, "id", "cannot name a file"),
        (HEADER + GOOD.replace("A,", ",", 1), 2, "id", "cannot name a file"),
        (HEADER + GOOD.replace("fitness", "speed"), 2, "property", "use one of fitness"),
        (HEADER + GOOD.replace("MKT", "MK1"), 2, "target_seq", "'1' at position 3"),
        (HEADER + GOOD.replace("MKT,1", "MKT,0"), 2, "n_proteins", "not a count"),
        (HEADER + GOOD.replace("MKT,1", "MKT,x"), 2, "n_proteins", "not a count"),
        (HEADER + GOOD.replace("higher", "ddG: lower"), 2, "sign", "higher is better"),
        (HEADER + GOOD.replace("better", "worse"), 2, "sign", "higher is better"),
        (HEADER + GOOD.replace("higher", "Lower"), 2, "sign", "multiply the scores by -1"),
        (HEADER + GOOD.replace("higher", "as in source: lower"), 2, "sign", "higher is better"),
    ],
)
def test_bad_manifests_are_located(tmp_path, text, row, column, says):
    with pytest.raises(DataError, match=says) as caught:
        read_manifest(write(tmp_path, text))
    assert caught.value.file == str(tmp_path / "MANIFEST.csv")
    assert (caught.value.row, caught.value.column) == (row, column)


@pytest.mark.parametrize(
    "sign", ["", "flipped (source: lower = better)", "flipped; higher = better"]
)
def test_a_sign_that_was_turned_is_read(tmp_path, sign):
    text = HEADER + GOOD.replace("higher = better", sign)
    assert read_manifest(write(tmp_path, text))["sign"].tolist() == [sign]


def test_there_is_no_manifest(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read_manifest(tmp_path)
    file = tmp_path / "scores.csv"
    file.write_text("mutant,score\n")
    with pytest.raises(DataError, match="this is a file; give the folder"):
        read_manifest(file)


def test_the_four_properties():
    for name in PROPERTIES:
        check_property(name)
    for name in ("Fitness", "", "affinity"):
        with pytest.raises(DataError, match="is not a property"):
            check_property(name)
