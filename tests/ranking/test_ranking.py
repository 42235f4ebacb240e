"""From a file to a list: what is read, what the model makes of it, and what is written."""

import io
import json
import re
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import mutmeta_lib as mm
from mutmeta_lib.cli import app
from mutmeta_lib.data.folders import read_data_dir
from mutmeta_lib.data.variants import format_variant, parse_variant, single_variants
from mutmeta_lib.errors import DataError
from mutmeta_lib.ranking import check, model, tables, write
from mutmeta_lib.ranking.sheets import read_sheet, write_sheet

WILD_TYPE = "MKTAYIAKQRQISFVKSHFSRQLEERLGLIE"
PLAIN = "mutant,score\nK2R,0.5\nT3P,-1.5\nA4G,0.1\nI6V,0.2\nV15D,-2\nF19L,-0.5\n"


def measure(text, **options):
    return tables.read_measurements(pd.read_csv(io.StringIO(text), dtype=str), WILD_TYPE, **options)


@pytest.fixture(scope="module")
def fitted():
    return model.fit(WILD_TYPE, pd.read_csv(io.StringIO(PLAIN)), property="stability")


@pytest.mark.parametrize(
    ("header", "columns"),
    [
        ("mutant,score", {"mutant": "mutant", "score": "score"}),
        ("Mutation , Tm", {"mutant": "Mutation", "score": "Tm"}),
        ("which,SE;activity", {"mutant": "which", "score": "activity", "error": "SE"}),
        ("hgvs_pro,score_sd;position;DMS_score", {"score": "DMS_score", "error": "score_sd"}),
        ("index;variant,Score", {"mutant": "variant", "score": "Score"}),
    ],
)
def test_columns_are_guessed_from_names_and_cells(header, columns):
    before, after = (part.split(";") for part in header.split(","))
    rows = [
        ["1"] * (len(before) - 1) + [v, *(["0.1"] * (len(after) - 1)), f"{i}.5"]
        for i, v in enumerate(("K2R", "p.Thr3Pro"))
    ]
    text = "\n".join(map(",".join, [[*before, *after], *rows]))
    found = tables.guess_columns(text, WILD_TYPE)
    assert {name: found[name] for name in columns} == columns
    assert ("error" in found) == ("error" in columns)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("mutant,Tm,yield\nK2R,1,2\n", "several columns may be the score: Tm, yield"),
        ("mutant,score_1,score_2\nK2R,1,2\n", "several columns may be the score: score_1, score_2"),
        ("mutant,Tm_rep1,Kd_rep1\nK2R,1,2\n", "several columns may be the score"),
        ("mutant,note\nK2R,good\n", r"no column holds scores \(found: mutant, note\)"),
        ("a,b,score\nK2R,T3P,1\n", "several columns may hold mutations: a, b"),
        ("K2R,1\nT3P,2\n", "as if the header were missing"),
        ("mutant,score\nK2R,1\nT3*,2\n", r"row 3.*stop codon.*--drop nonsense leaves such rows"),
        ("mutant,score\nK2R,1\nK3R,2\nK4R,1\n", "row 3.*and 1 more such problem"),
        ("mutant,score\nK2R,1e31\n", "use another unit"),
        ("mutant,score,mutated_sequence\nK2R,1,MKT\n", "not the wild type with K2R"),
        ("mutant,score,score_sd\nK2R,1,0\nT3P,2,low\n", "'low' is not a number"),
    ],
)
def test_what_is_unclear_is_refused(text, told):
    with pytest.raises(DataError, match=told):
        measure(text)


def test_repeats_are_averaged_bounds_kept_and_every_row_accounted_for():
    read = measure(
        "mutant,score,se\nK2R,1,0.1\np.Lys2Arg,3,0.2\nT3P,<0.1,\nA4G,> 95,\nA4G,97,\nWT,2,\nwt,4,\n"
        "I6V,,\nT3*,-9,\nK2N:A4G,7,1\n",
        drop=["nonsense"],
    )
    told = read.told.set_index("mutant")
    assert dict(zip(map(format_variant, read.variants), read.scores, strict=True)) == {
        "K2R": pytest.approx((1 / 0.01 + 3 / 0.04) / (1 / 0.01 + 1 / 0.04)),
        "T3P": 0.1,
        "A4G": 96.0,
        "K2N:A4G": 7.0,
    }
    assert told["used"].to_dict() == dict.fromkeys(told.index, True) | {
        "WT": False,
        "I6V": False,
        "T3*": False,
    }
    assert told["n"].sum() == 10
    assert told.loc["K2R", "sd"] == pytest.approx(2**0.5)
    assert read.wild_type == 3.0
    assert "<0.1" in told.loc["T3P", "why"]
    assert "> 95" in told.loc["A4G", "why"]
    assert "row 9" in told.loc["I6V", "why"]
    assert "stop" in told.loc["T3*", "why"]


@pytest.mark.parametrize(
    ("header", "named"),
    [("rep1,rep 2,Rep_3", ""), ("KD_run1,KD_run2,KD_run3", ""), ("a,b,c", "a,b, c")],
)
def test_repeats_may_be_columns_and_a_row_needs_one_of_them(header, named):
    rows = "K2R,1,2,3\nT3P,,<5,\nA4G,,,\nK2R,6,,\n"
    read = measure(f"mutant,{header}\n{rows}", score_column=named)
    told = read.told.set_index("mutant")
    assert told["n"].to_dict() == {"K2R": 4, "T3P": 1, "A4G": 1}
    assert told["used"].to_dict() == {"K2R": True, "T3P": True, "A4G": False}
    assert read.scores.tolist() == [3, 5]
    assert "<5" in told.loc["T3P", "why"]
    assert "row 4" in told.loc["A4G", "why"]
    with pytest.raises(DataError, match=r"row 3.*'high' is not a number"):
        measure(f"mutant,{header}\nK2R,1,2,3\nT3P,1,high,2\n", score_column=named)
    with pytest.raises(DataError, match=r"row 2.*K3R"):
        measure(f"mutant,{header}\nK3R,1,2,3\n", score_column=named)


@pytest.mark.parametrize("ending", ["csv", "tsv", "xlsx"])
def test_a_table_is_the_same_in_every_kind_of_file(tmp_path, ending):
    file, frame = tmp_path / f"a.{ending}", pd.read_csv(io.StringIO(PLAIN))
    if ending == "xlsx":
        write_sheet(file, frame)
    else:
        frame.to_csv(file, index=False, sep="\t" if ending == "tsv" else ",")
    assert tables.read_measurements(file, WILD_TYPE).scores.tolist() == frame["score"].tolist()


def test_a_sheet_that_excel_wrote_is_read_with_gaps_and_shared_strings():
    main = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    strings = f"<sst {main}><si><t>mutant</t></si><si><r><t>K2</t></r><r><t>R</t></r></si></sst>"
    rows = '<row><c r="A1" t="s"><v>0</v></c><c r="C1" t="str"><v>score</v></c></row>'
    rows += '<row><c r="A2" t="s"><v>1</v></c><c r="C2"><v>-1.5</v></c></row>'
    kept = io.BytesIO()
    with zipfile.ZipFile(kept, "w") as made:
        made.writestr("xl/sharedStrings.xml", strings)
        made.writestr("xl/worksheets/sheet10.xml", "<x/>")
        made.writestr("xl/worksheets/sheet2.xml", f"<x {main}>{rows}</x>")
    assert read_sheet(kept.getvalue(), 10_000) == "mutant,,score\nK2R,,-1.5\n"


def test_leaving_one_out_is_adapting_without_it(fitted):
    frame = pd.read_csv(io.StringIO(PLAIN))
    for row, mutant in enumerate(frame["mutant"]):
        rest = model.fit(WILD_TYPE, frame.drop(index=row), property="stability").predict([mutant])
        mine = fitted.left_one_out.iloc[row]
        assert mine["mutant"] == mutant
        assert mine[["predicted", "std"]].tolist() == pytest.approx(
            rest.loc[0, ["prediction", "std"]].tolist(), abs=2e-3
        )


def test_the_learning_curve_is_that_of_fitting_fewer_of_the_labels_anew():
    assay = read_data_dir("demo", properties=["fitness"])[0]
    frame = pd.DataFrame(
        {"mutant": [format_variant(v) for v in assay.variants[:17]], "score": assay.scores[:17]}
    )
    fitted = model.fit(assay.wild_type, frame)
    curve = check.learning_curve(fitted.adapted, fitted.property, draws=10)
    assert curve["labels"].tolist() == [0, 5, 10, 12]
    assert (curve["low"] <= curve["mean"]).all()
    rng, found = np.random.default_rng(0), []
    for order in [rng.permutation(17) for _ in range(10)]:
        test, pool = order[:5], order[5:]
        means = []
        for size in curve["labels"]:
            few = model.fit(assay.wild_type, frame.iloc[pool[:size]] if size else None)
            guess = few.predict(frame["mutant"].iloc[test].tolist()).set_index("mutant")
            guess = guess["prediction"].reindex(frame["mutant"].iloc[test]).to_numpy()
            means.append(check._spearman(guess, frame["score"].to_numpy()[test]))
        found.append(means)
    np.testing.assert_allclose(curve["mean"], np.mean(found, axis=0), atol=1e-9)
    few = model.fit(assay.wild_type, frame.head(9))
    assert check.learning_curve(few.adapted, few.property).empty


def test_one_hot_ridge_left_out_is_that_of_scikit_learn():
    from sklearn.linear_model import Ridge

    assay = read_data_dir("demo", properties=["fitness"])[0]
    frame = pd.DataFrame(
        {"mutant": [format_variant(v) for v in assay.variants[:12]], "score": assay.scores[:12]}
    )
    fitted = model.fit(assay.wild_type, frame)
    scores = fitted.adapted.assay.scores
    found = check.ridge_left_out(fitted.adapted, scores)
    letters = np.zeros((12, len(assay.wild_type), 128))
    for row, variant in enumerate(fitted.adapted.assay.variants):
        for one in variant:
            letters[row, one.position, [ord(one.mutant), ord(one.wild_type)]] = 1, -1
    flat, misses = letters.reshape(12, -1), []
    for penalty in check.RIDGE_PENALTIES:
        others = [np.delete(np.arange(12), i) for i in range(12)]
        left = [
            Ridge(alpha=penalty).fit(flat[rest], scores[rest]).predict(flat[[i]])[0]
            for i, rest in enumerate(others)
        ]
        misses.append(np.abs(np.array(left) - found).max())
    assert min(misses) < 1e-6


def test_lower_is_better_turns_order_and_signs_alone(fitted):
    frame = pd.read_csv(io.StringIO(PLAIN)).assign(score=lambda f: -1e-9 * f["score"])
    turned = model.fit(WILD_TYPE, frame, direction="lower", property="stability")
    ours, theirs = fitted.predict(), turned.predict()
    assert ours["mutant"].tolist() == theirs["mutant"].tolist()
    for mine, other, sign in (
        ("prediction", "prediction", -1),
        ("std", "std", 1),
        ("upper", "lower", -1),
    ):
        np.testing.assert_allclose(1e9 * sign * theirs[mine], ours[other], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(theirs["probability_top"], ours["probability_top"], atol=1e-4)
    assert theirs["prediction"].is_monotonic_increasing
    assert turned.suggest(5)["mutant"].tolist() == fitted.suggest(5)["mutant"].tolist()


def test_a_list_has_its_columns_and_what_they_promise(fitted):
    table = fitted.predict()
    promised = "mutant hgvs_pro prediction std lower upper rank probability_top nearest_measured "
    assert " ".join(table.columns) == f"{promised}measured"
    assert len(table) == 19 * len(WILD_TYPE)
    assert table["rank"].tolist() == list(range(1, len(table) + 1))
    assert table["prediction"].is_monotonic_decreasing
    assert table["probability_top"].sum() == pytest.approx(len(table) / 10, rel=1e-3)
    assert table["measured"].notna().sum() == 6
    own = table.set_index("mutant")
    assert own.loc["V15D", ["measured", "nearest_measured"]].tolist() == [-2.0, "V15D"]
    assert own.loc["I12V", "nearest_measured"] == "V15D"


def test_suggestions_are_new_at_different_sites_and_told_why(fitted):
    chosen = fitted.suggest(12)
    sites = [parse_variant(one)[0].position for one in chosen["mutant"]]
    assert len(chosen) == len(set(sites)) == 12
    assert chosen["measured"].isna().all()
    assert chosen["reason"].str.len().gt(0).all()
    assert len(fitted.suggest(600)) == 19 * len(WILD_TYPE) - 6


@pytest.mark.parametrize("given", ["", "x.csv", "doubles-of-top:", "doubles-of-top:1", "triples"])
def test_candidates_that_are_none_are_one_sentence(fitted, given):
    with pytest.raises(DataError):
        fitted.predict(given)


def test_a_list_of_multiple_mutants_is_ranked_with_a_word_on_it(fitted, tmp_path):
    (tmp_path / "a.csv").write_text("variant\nK2R:T3S\nK2R\nK2R:T3S\nWT\n")
    with pytest.warns(UserWarning, match="extrapolated"):
        table = fitted.predict(tmp_path / "a.csv")
    assert sorted(table["mutant"]) == ["K2R", "K2R:T3S", "WT"]


def test_a_kept_model_says_the_same_and_notices_a_change(fitted, tmp_path):
    fitted.save(tmp_path / "m")
    again = mm.load_ranking(tmp_path / "m")
    pd.testing.assert_frame_equal(again.predict(), fitted.predict())
    assert again.record() == fitted.record()
    (tmp_path / "m/measurements.csv").write_text(PLAIN.replace("0.5", "0.6"))
    with pytest.raises(DataError, match="not what they were"):
        mm.load_ranking(tmp_path / "m")
    with pytest.raises(DataError, match="no folder with a model"):
        mm.load_ranking(tmp_path)


def test_what_was_made_names_no_place_of_a_machine_and_what_is_kept_finds_its_files_again(
    fitted, tmp_path
):
    weights = tmp_path / "mine.safetensors"
    weights.write_bytes(
        (Path(mm.__file__).parent / "pretrained/no-encoder.safetensors").read_bytes()
    )
    table = pd.read_csv(io.StringIO(PLAIN))
    mine = model.fit(WILD_TYPE, table, model=str(weights), property="stability")
    told = mine.record()
    assert told["parameters"]["model"] == "mine"
    assert str(tmp_path) not in json.dumps(told)
    mine.save(tmp_path / "m")
    again = mm.load_ranking(tmp_path / "m")
    pd.testing.assert_frame_equal(again.predict(), fitted.predict())


def warned(rows, property="stability", wild_type=WILD_TYPE):
    table = pd.DataFrame(rows, columns=["mutant", "score"])
    return " | ".join(model.fit(wild_type, table, property=property).warnings)


ALL = [format_variant(one) for one in single_variants(WILD_TYPE)[::29]]
SPREAD = [(mutant, np.sin(3.0 * i)) for i, mutant in enumerate(ALL)]


@pytest.mark.parametrize(
    ("rows", "more", "told"),
    [
        (SPREAD[:5], {}, "5 measured variants are too few to judge"),
        ([], {}, "nothing was measured"),
        ([(m, 1.0) for m in ALL], {}, "all measurements are equal"),
        ([(m, float(i > 17)) for i, m in enumerate(ALL)], {}, "most measurements are equal"),
        (SPREAD + [(m, -5 * s) for m, s in SPREAD], {}, "mostly noise"),
        ([*SPREAD, ("WT", 40.0)], {}, "wild type .* deviations off"),
        ([*SPREAD, ("K2R:T3S", 1.0)], {}, "1 of the measured variants have several"),
        (SPREAD, {"property": "thickness"}, "'thickness' is no property that the model learned"),
        (SPREAD, {"property": "solubility"}, "of solubility the model has met only 1 assay"),
        ([], {"wild_type": "GAGAGS" * 20}, "unlike all that the model learned from"),
    ],
)
def test_warnings_come_when_they_should(rows, more, told):
    assert re.search(told, warned(rows, **more))


def test_nothing_is_warned_of_that_is_in_order():
    said = warned([*SPREAD, ("WT", 0.1)])
    assert not re.sub("on your labels, [^|]*", "", said).strip(" |")


def test_an_unlike_protein_is_one_beyond_all_of_the_benchmark():
    start = mm.load_pretrained("no-encoder", device="cpu")
    natural = {assay.wild_type for assay in read_data_dir("demo")} | {WILD_TYPE * 4}
    assert max(model.unlikeness(start, one) for one in natural) < model.UNLIKE
    assert model.unlikeness(start, "Q" * 60) > 2 * model.UNLIKE


def run(*words, cwd=None):
    return CliRunner().invoke(app, list(map(str, words)))


def test_the_commands_go_from_files_to_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wt.fasta").write_text(f">=cmd|x mine\n{WILD_TYPE}\n")
    (tmp_path / "mine.csv").write_text(PLAIN)
    for name in ("a", "b"):
        done = run("rank", "wt.fasta", "mine.csv", "-o", f"{name}.csv", "--suggested", f"{name}.fa")
        assert done.exit_code == 0, done.output
    assert all(
        (tmp_path / f"a.{x}").read_bytes() == (tmp_path / f"b.{x}").read_bytes()
        for x in ("csv", "fa", "json")
    )
    assert "used" in done.output
    assert "too few" in done.output
    ranked = pd.read_csv("a.csv")
    assert ranked["prediction"].min() < 0
    kept = json.loads((tmp_path / "a.json").read_text())
    assert kept["used"] == 6
    assert kept["model"]["name"] == "no-encoder"
    assert (tmp_path / "a.fa").read_text().count(">") == 10
    assert run("rank", "mine.csv", "--fasta", "wt.fasta", "-o", "c.csv").exit_code == 0
    assert (tmp_path / "c.csv").read_bytes() == (tmp_path / "a.csv").read_bytes()
    assert run("adapt", "wt.fasta", "mine.csv", "-o", "kept").exit_code == 0
    done = run("predict", "kept", "--candidates", "doubles-of-top:5", "-o", "d.xlsx")
    assert done.exit_code == 0, done.output
    rows = read_sheet((tmp_path / "d.xlsx").read_bytes(), 10**6).splitlines()
    assert rows[0].startswith("mutant,hgvs_pro,prediction")
    assert ":" in rows[1]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("rank", WILD_TYPE, "nope.csv"), "does not exist"),
        (("rank", WILD_TYPE, "-o", "a.pdf"), "csv or xlsx"),
        (("rank", WILD_TYPE, "--direction", "up"), "use higher or lower"),
        (("rank", WILD_TYPE, "--model", "esm2-8m"), "needs an encoder"),
        (("predict", "nope"), "no folder with a model"),
    ],
)
def test_a_command_that_cannot_be_done_ends_in_one_sentence(words, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run(*words)
    assert done.exit_code == 2
    assert re.search(told, done.output)
    assert "Traceback" not in done.output


def test_cells_that_a_spreadsheet_would_run_are_written_as_text(tmp_path):
    table = pd.DataFrame({"=a": ["=1", "+2", "-3", "@x", "K2R", " =1"], "n": [-1.0, 2, 3, 4, 5, 6]})
    for ending in ("csv", "xlsx"):
        write.write_table(tmp_path / f"a.{ending}", table)
    text = (tmp_path / "a.csv").read_text()
    assert text.splitlines()[:3] == ["'=a,n", "'=1,-1.0", "'+2,2.0"]
    assert read_sheet((tmp_path / "a.xlsx").read_bytes(), 10**6) == text
