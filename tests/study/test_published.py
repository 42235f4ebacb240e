"""Published tables are read as they are, for the assays asked for and no others."""

import pandas as pd
import pytest
from on_disk import refused, write

from mutmeta_lib.study.benchmark import beside_published
from mutmeta_lib.study.published import (
    FEW_SHOT,
    MODELS,
    PROTOCOLS,
    REFERENCE,
    SUPERVISED,
    ZERO_LABEL,
    few_shot,
    same_assay,
    supervised,
    zero_label,
)
from mutmeta_lib.study.run import make_record

IDS = ["P_X_Lee_2020_binding", "Q_X_Roe_2019"]


@pytest.fixture
def folder(tmp_path):
    head = ",".join(["DMS ID", *reversed(MODELS), "Taxon"])
    cells = [",".join(f"0.{row}{i}" for i in range(len(MODELS))) for row in (1, 2, 3)]
    names = (*IDS, "R_X_Poe_2018")
    lines = [f"{name},{cell},Human" for name, cell in zip(names, cells, strict=True)]
    write(tmp_path / ZERO_LABEL, "\n".join([head, *lines]))
    write(
        tmp_path / REFERENCE,
        f"DMS_id,includes_multiple_mutants\n{IDS[0]},TRUE\n{IDS[1]},FALSE\nR_X_Poe_2018,TRUE\n",
    )
    rows = ["DMS_id,Kermut,ProteinNPT,One-Hot Encodings", *(f"{name},.7,.6,.5" for name in names)]
    write(tmp_path / SUPERVISED.format("random"), "\n".join(rows))
    few = "train_size,DMS_id_v01,model,method,mean,sd\n"
    few += "20,P_X_Lee_bind_2020,ESM2,FSFP,0.4,0.01\n40,P_X_Lee_bind_2020,ESM2,FSFP,0.5,0.01\n"
    write(tmp_path / FEW_SHOT, few + "20,average,ESM2,FSFP,0.4,0.01\n20,S_X_2,ESM2,FSFP,0.1,0.1\n")
    return tmp_path


def test_zero_label_values_keep_their_sign_but_where_scores_are_turned(folder):
    table = zero_label(folder, IDS)
    assert len(table) == 2 * len(MODELS)
    assert set(table["assay"]) == set(IDS)
    values = table.set_index(["assay", "model"])["spearman"]
    assert values[IDS[0], MODELS[-1]] == 0.10
    assert values[IDS[1], MODELS[0]] == pytest.approx(0.2 + (len(MODELS) - 1) / 100)
    assert dict(zip(table["assay"], table["singles"], strict=True)) == {IDS[0]: False, IDS[1]: True}
    turned = zero_label(folder, IDS, [IDS[1]]).set_index(["assay", "model"])["spearman"]
    assert (turned[IDS[1]] == -values[IDS[1]]).all()
    assert (turned[IDS[0]] == values[IDS[0]]).all()


def test_few_shot_values_stand_under_the_new_id(folder):
    table = few_shot(folder, IDS)
    assert table[["assay", "shots", "spearman"]].to_numpy().tolist() == [
        [IDS[0], 20, 0.4], [IDS[0], 40, 0.5],
    ]  # fmt: skip
    assert set(table["old_id"]) == {"P_X_Lee_bind_2020"}
    assert few_shot(folder, IDS[1:]).empty


def test_ceilings_are_read_and_what_is_missing_is_named(folder):
    assert supervised(folder, IDS).groupby("model")["spearman"].mean()["Kermut"] == 0.7
    assert set(PROTOCOLS) == {"zero_label", "few_shot", "supervised"}
    with refused("there is no assay 'Z'", folder / ZERO_LABEL):
        zero_label(folder, [*IDS, "Z"])
    with refused("does not exist", folder / SUPERVISED.format("modulo")):
        supervised(folder, IDS, "modulo")


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("SPIKE_SARS2_Starr_expr_2020", ["SPIKE_SARS2_Starr_2020_binding"], False),
        ("SPIKE_SARS2_Starr_expr_2020", ["SPIKE_SARS2_Starr_2020_expression"], True),
        ("P53_HUMAN_Giacomelli_NULL_Nutlin_2018", ["P53_HUMAN_Giacomelli_2018_Null_Nutlin"], True),
        ("P53_HUMAN_Giacomelli_NULL_Nutlin_2018", ["P53_HUMAN_Giacomelli_2018_WT_Nutlin"], False),
        ("R1AB_SARS2_Flynn_growth_2022", ["R1AB_SARS2_Flynn_2022"], True),
        ("A4_HUMAN_Seuma_2021", ["A4_HUMAN_Seuma_2022"], False),
        ("A_B_2020", ["A_B_2020_x", "A_B_2020_y"], False),
        ("average", ["A_B_2020"], False),
    ],
)  # fmt: skip
def test_ids_are_those_of_one_assay_only_if_all_words_fit(old, new, same):
    assert same_assay([old], new) == ({old: new[0]} if same else {})


def test_published_means_stand_beside_ours_on_the_same_assays(folder):
    about = pd.DataFrame({"assay": IDS, "cluster": [0, 1]})
    row = {"arm": "a", "read": "no_encoder", "swap": "same", "method": "ranker"}
    wide = [{**row, "assay": name, "0": 0.0 + nth, "20": 0.1 + nth} for nth, name in enumerate(IDS)]
    results = pd.DataFrame(wide)
    how = {"data": {}, "device": "cpu", "seconds": {}, "encoder": {}, "numbers": {}}
    tables = {"results": results, "assays": about}
    record = make_record("benchmark", "quick", {}, tables=tables, **how)
    found = beside_published(record, folder)
    table = found.table("published").set_index(["protocol", "model", "shots"])
    zero = zero_label(folder, IDS).groupby("model")["spearman"].mean()
    for name in MODELS:
        assert table.loc[("zero_label", name, "0"), "mean"] == pytest.approx(zero[name])
    assert table.loc[("supervised", "Kermut", "80 %"), "mean"] == pytest.approx(0.7)
    assert table.loc[("few_shot", "FSFP, ESM2", "20"), ["mean", "n_assays"]].tolist() == [0.4, 1]
    ours = found.table("shared").set_index("shots")["mean"]  # on the assay that FSFP has
    assert ours.to_dict() == pytest.approx({0: 0.0, 20: 0.1})
    assert found.table("results").equals(record.table("results"))
