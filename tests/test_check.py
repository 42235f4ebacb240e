"""All problems of a table are found, with the rows that the reader would name."""

import pytest

from mutmeta_lib.assays import read_table
from mutmeta_lib.check import table_problems
from mutmeta_lib.errors import DataError

WILD_TYPE = "MKTAYIAKQR"


def problems(tmp_path, text, **options):
    path = tmp_path / "scores.csv"
    path.write_text(text)
    return table_problems(path, WILD_TYPE, property="stability", **options)


def test_a_sound_table_has_none(tmp_path):
    assert problems(tmp_path, "mutant,score\nK2R,0.5\np.Thr3Gly,1\nWT,0\n") == []


def test_every_row_is_judged(tmp_path):
    rows = ["K2R,0.5", "A2G,1", "K2R,0.7", "T3G,", "K20R,nan", "k2r,1", "T3G:T3A,2", "A4G,1"]
    found = problems(tmp_path, "mutant,score\n" + "\n".join(rows) + "\n")
    assert [(p.row, p.column) for p in found] == [
        (3, "mutant"),
        (4, "mutant"),
        (5, "score"),
        (6, "score"),
        (6, "mutant"),
        (7, "mutant"),
        (8, "mutant"),
    ]
    assert "first in row 2" in str(found[1])
    assert all(str(p).count("scores.csv") == 1 for p in found)


def test_the_mutated_sequence_is_judged_too(tmp_path):
    text = "mutant,score,mutated_sequence\nK2R,1,MRTAYIAKQR\nT3G,1,MKTAYIAKQR\n"
    (found,) = problems(tmp_path, text)
    assert (found.row, found.column) == (3, "mutated_sequence")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("mutant,fitness\nK2R,1\n", "column 'score'"),
        ("", "the file is empty"),
        ("mutant,score\n", "no rows"),
    ],
)
def test_a_problem_of_the_whole_file_stands_alone(tmp_path, text, told):
    (found,) = problems(tmp_path, text)
    assert told in str(found)


def test_an_offset_is_recognised(tmp_path):
    rows = [f"{letter}{i + 24}G" for i, letter in enumerate(WILD_TYPE, start=1)]
    found = problems(tmp_path, "mutant,score\n" + "".join(f"{row},1\n" for row in rows))
    assert len(found) == len(rows)
    assert "add -24 to every position" in str(found[0])


def test_the_first_problem_is_the_readers(tmp_path):
    text = "mutant,score\nK2R,1\nA2G,1\nK2R,2\nT3G,x\n"
    found = problems(tmp_path, text)
    with pytest.raises(DataError) as caught:
        read_table(tmp_path / "scores.csv", WILD_TYPE, property="stability")
    assert str(caught.value) in [str(p) for p in found]
