"""Tables of the third arm from made-up results whose answers are known."""

import numpy as np
import pandas as pd
import pytest

from mutmeta_lib.study.transfer_encodings import encoding_tables
from mutmeta_lib.study.transfer_failures import signatures
from mutmeta_lib.study.transfer_numbers import (
    name_numbers,
    related_table,
    report_tables,
)

N = 8
ASSAYS = pd.DataFrame(
    {
        "assay": [f"a{i}" for i in range(N)],
        "property": ["fitness"] * 4 + ["solubility"] * 4,
        "role": ["fitness"] * 4 + ["solubility", "solubility", "classes", "classes"],
        "cluster": [0, 0, 1, 2, 3, 4, 5, 6],
        "variants": range(20, 20 + N),
        "length": 50,
        "sites": 10,
        "several": 0.0,
        "skewness": np.linspace(-1, 1, N),
        "ties": 0.1,
    }
)
NEAREST = pd.DataFrame(
    [(regime, f"a{i}", i / 10) for regime in ("proteins", "related") for i in range(N)],
    columns=["regime", "assay", "identity"],
)


def made(regime, method, shots, spearman, mse):
    return [
        {
            "regime": regime,
            "method": method,
            "assay": f"a{i}",
            "shots": shots,
            "spearman": spearman + 0.01 * i,
            "ndcg": 0.5,
            "mse": mse,
            "mae": mse**0.5,
            "relative_mse": mse,
        }
        for i in range(N)
    ]


@pytest.fixture(scope="module")
def tables():
    rows = made("proteins", "maml", 0, 0.1, np.nan)
    for regime, lift in (("proteins", 0.0), ("related", 0.2)):
        rows += made(regime, "maml", 10, 0.3 + lift, 1.0)
        rows += made(regime, "maml_mse", 10, 0.2 + lift, 0.5)
    rows += made("proteins", "maml_1", 10, 0.24, 1.0)
    rows += made("proteins", "finetune", 10, 0.1, 2.0) + made("proteins", "ridge", 10, 0.4, 0.25)
    rows += made("proteins", "finetune_mse", 10, 0.1, 1.0)
    return report_tables(pd.DataFrame(rows), ASSAYS, NEAREST, 10, ("classes",))


def one(table, **where):
    for name, value in where.items():
        table = table[table[name] == value]
    assert len(table) == 1
    return table.iloc[0]


def test_the_deciding_gain_has_rates_chosen_for_error(tables):
    at = {"regime": "proteins", "group": "all", "baseline": "finetune", "metric": "mse"}
    assert one(tables["gains"], rates="error", **at)["mean"] == pytest.approx(0.5)
    assert one(tables["gains"], rates="ranks", **at)["mean"] == pytest.approx(0.5)
    against = one(tables["gains"], rates="error", **{**at, "baseline": "ridge"})
    assert against["mean"] == pytest.approx(1 - 0.5 / 0.25)


def test_classes_have_ranks_but_no_errors(tables):
    gains = tables["gains"]
    assert set(gains[gains["group"] == "solubility"]["n_assays"]) == {2}
    classes = tables["results"]["assay"].isin(["a6", "a7"])
    assert tables["results"].loc[classes, "mse"].isna().all()
    assert tables["results"].loc[classes, "spearman"].notna().all()


def test_units_are_clusters(tables):
    row = one(
        tables["differences"], regime="proteins", group="fitness", baseline="finetune", shots=10
    )
    assert (row["n_assays"], row["n_units"]) == (4, 3)
    assert row["mean"] == pytest.approx(0.2)


def test_one_step_is_set_against_ten_and_against_none(tables):
    rapid = tables["rapid"].set_index("what")["mean"]
    mean = np.mean([0.01 * i for i in range(N)])
    assert rapid["share"] == pytest.approx((0.24 + mean) / (0.3 + mean))
    assert rapid["maml_1 minus no label"] == pytest.approx(0.14)


def test_a_relative_in_training_is_paired_by_assay_and_seed():
    rows = []
    for seed in (0, 1):
        rows += [{**row, "seed": seed} for row in made("proteins", "maml", 10, 0.3 + seed, 1.0)]
    # Only the second seed was run with a relative: the first must not be compared with.
    rows += [{**row, "seed": 1} for row in made("related", "maml", 10, 1.5, 1.0)]
    clusters = dict(zip(ASSAYS["assay"], ASSAYS["cluster"], strict=True))
    found = one(related_table(pd.DataFrame(rows), clusters, 10), method="maml")
    assert found["mean"] == pytest.approx(0.2)
    assert (found["n_assays"], found["n_units"]) == (8, 7)


def test_failures_name_the_best_rival(tables):
    failures = tables["failures"]
    assert set(failures["best_rival"]) == {"ridge"}
    assert np.allclose(failures["behind"], 0.1)
    assert failures["identity"].tolist() == [i / 10 for i in range(N)]


def test_a_signature_is_found_where_there_is_one():
    lead = np.linspace(0, 1, 12)
    table = pd.DataFrame(
        {"maml": lead, "ridge": 0.0, "identity": lead, "length": 7, "cluster": range(12)}
    )
    found = one(signatures(table, n_boot=50), rival="ridge", sign="identity")
    assert found["mean"] == pytest.approx(1)
    assert "length" not in set(signatures(table, n_boot=50)["sign"])


def test_numbers_are_named_after_their_rows(tables):
    none = pd.DataFrame()
    numbers = name_numbers({**tables, "related": none})
    assert numbers["proteins_all_gain_over_finetune_mse"]["value"] == pytest.approx(0.5)
    assert numbers["proteins_all_maml_minus_ridge_10"]["value"] == pytest.approx(-0.1)
    assert numbers["rapid_share"]["n"] == N
    assert not [name for name in numbers if " " in name]


def test_encodings_are_compared_per_method_and_pooling_on_the_same_assays():
    rows, pairs = [], [["separator", "sites"], ["mutant", "sites"], ["separator", "cls"]]
    pairs += [["mutant", "cls"], ["unknown_site", "mean"]]
    for (encoding, pooling), lift in zip(pairs, (0.2, 0.0, 0.1, 0.05, 0.0), strict=True):
        for method, base in (("maml", 0.3), ("finetune", 0.1), ("finetune_mse", 9.0)):
            rows += made(f"{encoding}/{pooling}", method, 10, base + lift, 1.0)
    found = encoding_tables(pd.DataFrame(rows), ASSAYS, pairs, 10)
    at = {"group": "all", "method": "maml"}
    differences = found["differences"]
    assert one(differences, encoding="mutant", pooling="sites", **at)["mean"] == pytest.approx(0.2)
    assert one(differences, encoding="mutant", pooling="cls", **at)["mean"] == pytest.approx(0.05)
    alone = one(differences, encoding="unknown_site", **at)
    assert alone["reference"] == "separator/sites"
    assert "separator" not in set(differences["encoding"])
    shares = one(found["shares"], group="all", encoding="mutant", pooling="sites")
    assert shares["mean"] == pytest.approx(0.2)
    assert set(found["summary"]["method"]) == {"maml", "finetune"}


def test_a_role_that_is_called_as_its_property_is_a_group_of_its_own(tables):
    counts = tables["gains"].groupby("group")["n_assays"].first()
    assert counts["solubility"] == counts["solubility scores"] == 2
    ranked = tables["differences"].groupby("group")["n_assays"].first()
    assert (ranked["solubility"], ranked["solubility scores"]) == (4, 2)
    named = ["regime", "group", "baseline", "rates", "metric"]
    assert not tables["gains"].duplicated(named).any()
