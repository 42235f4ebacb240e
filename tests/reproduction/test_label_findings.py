import numpy as np
import pytest
from release_copy import WILD, backwards, write_table

from mutmeta_lib.data.assays import Assay
from mutmeta_lib.data.variants import parse_variant
from mutmeta_lib.reproduction.findings import directions
from mutmeta_lib.reproduction.label_findings import against_reference, agreement, proline, scaling
from mutmeta_lib.reproduction.release import read_release


def standardised(values):
    values = np.asarray(values, dtype=float)
    return (values - values.mean()) / values.std()


def test_agreement_is_over_rows_that_both_have(tmp_path):
    labels = [1.0, 2.0, 3.0, 4.0]
    first = [(*backwards(p, "W"), y, "domain", "f") for p, y in enumerate(labels, start=1)]
    second = [(*backwards(p, "W"), -y, "domain", "f") for p, y in enumerate(labels[:3], start=1)]
    second.append((*backwards(9, "W"), 9.0, "domain", "f"))
    # Another source's row is the same to a model.
    second.append((*backwards(4, "W"), 0.0, "elsewhere", "f"))
    write_table(tmp_path, "combined_ddG_train", first, "ddG")
    write_table(tmp_path, "fireprot_dTm_test", second, "dTm")
    files = read_release(tmp_path)
    table = agreement([files["combined_ddG_train"]], [files["fireprot_dTm_test"]])
    domain, elsewhere = table.to_dict("records")
    assert domain == {"source": "domain", "rows": 3, "spearman": -1.0}
    assert (elsewhere["source"], elsewhere["rows"]) == ("elsewhere", 1)
    assert np.isnan(elsewhere["spearman"])


def test_proline_reads_the_new_residue_in_the_direction_of_the_row(tmp_path):
    rows = [(*backwards(p, "P"), -2.0, "domain", "deltag_t") for p in (1, 2)]
    rows += [(*backwards(p, "L"), 1.0, "domain", "deltag_t") for p in (3, 4, 5)]
    # Read backwards, this one would be a substitution of a proline.
    rows += [(WILD, ["K2P"], 3.0, "fireprot", "ddG"), (WILD, ["K2R"], 0.0, "fireprot", "ddG")]
    rows += [(WILD, ["K2K"], 9.0, "fireprot", "ddG"), (WILD, ["K2P"], 9.0, "x", "unknown")]
    write_table(tmp_path, "combined_ddG_train", rows, "ddG")
    files = read_release(tmp_path)
    kinds = {"deltag_t": "dG", "ddG": "ddG"}
    table = proline(list(files.values()), directions(files), kinds)
    found = {(r["kind"], r["group"]): (r["rows"], r["mean"]) for r in table.to_dict("records")}
    assert found == {
        ("dG", "to proline"): (2, -2.0),
        ("dG", "to another residue"): (3, 1.0),
        ("ddG", "to proline"): (1, 3.0),
        ("ddG", "to another residue"): (1, 0.0),
    }


@pytest.mark.parametrize("together", [True, False])
def test_scaling_tells_labels_scaled_together_from_others(tmp_path, together):
    raw = [1.0, 4.0, 2.0, 9.0, 5.0]
    # The last raw row is in neither part and must not enter the standardisation.
    scaled = standardised(raw[:4]) if together else [*standardised(raw[:3]), 2.5]
    rows = [(WILD, [f"K2{letter}"], "s", "f") for letter in "ACDEF"]

    def write(id, labels, chosen):
        table = [(*row[:2], y, *row[2:]) for row, y in zip(chosen, labels, strict=True)]
        write_table(tmp_path, id, table, "dTm")

    write("fireprot_dTm_raw", raw, rows)
    write("fireprot_dTm_train", scaled[:3], rows[:3])
    write("fireprot_dTm_test", scaled[3:4], rows[3:4])
    (row,) = scaling(read_release(tmp_path)).to_dict("records")
    assert row["dropped"] == 1
    assert (row["from_raw"] < 1e-12) == together
    assert (row["mean"] < 1e-12) == together


def test_scaling_is_per_source_and_needs_no_raw_table(tmp_path):
    pairs = zip("ACDE", standardised([1, 2, 3, 7]), strict=True)
    others = zip("ACDE", standardised([5, 1, 1, 2]), strict=True)
    rows = [(WILD, [f"K2{a}"], y, "a", "f") for a, y in pairs]
    rows += [(WILD, [f"K2{a}"], y, "b", "f") for a, y in others]
    write_table(tmp_path, "fireprot_dTm_train", rows[::2], "dTm")
    write_table(tmp_path, "fireprot_dTm_test", rows[1::2], "dTm")
    (row,) = scaling(read_release(tmp_path)).to_dict("records")
    assert row["mean"] < 1e-12
    assert row["sd_off"] < 1e-12
    assert row["from_raw"] is None


def test_reference_tells_direction_sign_and_wild_type(tmp_path):
    variants = [parse_variant(v) for v in ("K2R", "T3G", "A4S", "Y5F", "I6L")]
    true = "MKTAYI"
    scores = np.arange(5.0)
    assay = Assay("protein", "P", "fitness", true, tuple(variants), scores, "u", "higher = better")
    stated = "RKGAFY"  # another protein: letters agree here and there, in either direction
    rows = [
        (stated, ["K2R"], -0.0, "protein", "f"),
        (stated, ["G3T"], -1.0, "protein", "f"),
        (stated, ["A4S"], -2.0, "protein", "f"),
        (stated, ["F5Y"], -3.0, "protein", "f"),
        (stated, ["R1C"], 5.0, "protein", "f"),
    ]
    write_table(tmp_path, "combined_ddG_train", rows, "ddG")
    (row,) = against_reference(list(read_release(tmp_path).values()), [assay]).to_dict("records")
    assert row == {
        "table": "combined_ddG_train",
        "source": "protein",
        "rows": 5,
        "assay_variants": 5,
        "forwards": 2,
        "backwards": 2,
        "wild_type": False,
        "spearman": -1.0,
    }
