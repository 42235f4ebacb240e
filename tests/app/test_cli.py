"""The command line, as a process and in one: what it prints, and how it fails."""

import inspect
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from typer.testing import CliRunner

from mutmeta_lib.cli import app
from mutmeta_lib.records.record import Record, number, read_record

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200", "NO_COLOR": "1"}


def mutmeta(*arguments: str) -> subprocess.CompletedProcess:
    """Run the command as a process."""
    command = [sys.executable, "-m", "mutmeta_lib.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False)


def inside(*arguments: str):
    """Run the command within this process, which imports torch once."""
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200", "NO_COLOR": "1"})


@pytest.fixture
def notebook(tmp_path: Path) -> Path:
    cell = new_code_cell("seeds = 1\nshots = [0]", metadata={"tags": ["parameters"]})
    path = tmp_path / "notebooks/01_a.ipynb"
    path.parent.mkdir()
    body = new_code_cell("print(seeds, shots)\n1 / seeds")
    nbformat.write(new_notebook(cells=[cell, body]), path)
    return path


def test_help_is_quick_and_imports_nothing_heavy():
    code = "import sys, mutmeta_lib.cli; print({'torch', 'pandas', 'papermill'} & {*sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert loaded.stdout == "set()\n"
    began = time.perf_counter()
    done = mutmeta("--help")
    assert done.returncode == 0
    assert time.perf_counter() - began < 1.5 * 4  # other tests may hold the processor
    for command in ("data", "encode", "run", "sweep", "train", "evaluate"):
        assert command in done.stdout


def test_encode_prints_the_tokens_as_the_model_sees_them():
    done = mutmeta("encode", "MKTA", "T3G", "p.Lys2Arg")
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [
        "separator",
        "9",
        "6",
        "[CLS]",
        "M",
        "K",
        "[SEP]",
        "T",
        "[SEP]",
        "G",
        "[SEP]",
        "A",
    ] in lines
    assert ["unknown_text", "7", "3", "[CLS]", "M", "K", "T", "A", "[SEP]", "[UNK]"] in lines
    assert ["mutant", "5", "2", "[CLS]", "M", "R", "T", "A"] in lines
    assert ["K2R", "on", "4", "residues,", "encoder", "tiny"] in lines


def test_the_readme_shows_real_output():
    readme = (Path(__file__).resolve().parents[2] / "README.md").read_text()
    command, _, shown = readme.partition("$ mutmeta ")[2].partition("```")[0].partition("\n")
    printed = inside(*command.split()).stdout
    assert [line.rstrip() for line in printed.splitlines()] == shown.splitlines()


def test_bad_input_is_one_sentence_and_exit_code_2():
    done = mutmeta("encode", "MKTA", "T30G")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        "position 30 lies outside the wild type (4 residues); check the numbering offset\n"
    )


def test_a_wrong_parameter_stops_before_anything_runs(notebook):
    done = mutmeta("run", str(notebook), "-p", "seed", "3")
    assert done.returncode == 2
    assert done.stderr == "01_a.ipynb: there is no parameter 'seed'; did you mean 'seeds'?\n"
    assert sorted(p.name for p in notebook.parent.parent.iterdir()) == ["notebooks"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["encode", "MKTA", "T3G", "--encoding", "seperator"], "no encoding 'seperator'"),
        (["encode", "MKTA", "T3G", "--encoder", "./nowhere"], "nowhere"),
        (["encode", "nowhere.fasta", "T3G"], "the file does not exist"),
        (["encode", "MKJA", "T3G"], "'J' at position 3"),
        (["encode", "MKTA", "t3g"], "write T3G"),
        (["encode", "MKTA", "p.Thr3Ter"], "stop codon"),
        (["encode", "MKTA", "NP_1.2:p.Thr3Gly"], "names the sequence NP_1.2"),
        (["data", "list", "--data-dir", "nowhere"], "MANIFEST.csv"),
        (["data", "list", "--property", "colour"], "'colour' is not a property"),
        (["data", "check", "x.csv", "--wild-type", "MK", "--property", "stability"], "x.csv"),
        (["run", "nowhere.ipynb"], "no such notebook"),
        (["evaluate", "--metric", "accuracy"], "no metric 'accuracy'"),
        (["evaluate", "--shots", "0;5"], "write whole numbers with commas"),
        (["evaluate", "--shots", "5,0,5"], "--shots names 5 twice"),
        (["evaluate", "--methods", "maml,rigde"], "no method 'rigde'"),
        (["evaluate", "--device", "tpu"], "no device 'tpu'"),
    ],
)
def test_bad_input(arguments, told):
    done = inside(*arguments)
    assert done.exit_code == 2
    assert told in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "x.ipynb", "-p", "seeds"],
        ["data", "check", "x.csv", "--property", "stability"],
        ["data", "check", "x.csv", "--property", "fitness", "--fasta", "a", "--wild-type", "M"],
        ["data", "check", "x.csv", "--property", "fitness", "--wild-type", "wild_type.fasta"],
        ["evaluate", "--seeds", "0"],
        ["frobnicate"],
    ],
)
def test_wrong_usage_is_exit_code_2_as_well(arguments):
    assert inside(*arguments).exit_code == 2


def test_data_list_shows_the_bundled_assays():
    done = inside("data", "list", "--property", "stability")
    assert done.exit_code == 0
    assert "10.1073/pnas.1903888116" in done.stdout
    assert "higher is better" in done.stdout


def test_data_check_lists_every_problem_or_says_that_there_is_none(tmp_path):
    wild_type = tmp_path / "wild_type.fasta"
    wild_type.write_text(">p\nMKTA\n")
    csv = tmp_path / "scores.csv"
    arguments = ["data", "check", str(csv), "--fasta", str(wild_type), "--property", "fitness"]
    csv.write_text("mutant,score\nK2R,1\nT3G,2.5\n")
    done = inside(*arguments)
    assert done.exit_code == 0
    assert "2 variants of 4 residues, scores from 1 to 2.5; nothing to mend" in done.stdout
    csv.write_text("mutant,score\nK2R,1\nT3G,\nA2G,1\n")
    done = inside(*arguments)
    assert done.exit_code == 2
    first, second, count, _ = done.stderr.splitlines()
    assert "row 3, column 'score'" in first
    assert "row 4, column 'mutant'" in second
    assert count == "2 problems found"


@pytest.fixture
def own_table(tmp_path):
    """Check a table against MKTAYIAKQR in a FASTA file."""
    (tmp_path / "wild_type.fasta").write_text(">p\nMKTAYIAKQR\n")

    def check(text, *options):
        (tmp_path / "scores.csv").write_text(text)
        fasta = str(tmp_path / "wild_type.fasta")
        given = ["--fasta", fasta, "--property", "fitness", *options]
        return inside("data", "check", str(tmp_path / "scores.csv"), *given)

    return check


def test_data_check_leaves_rows_out_and_counts_them(own_table):
    text = "mutant,score\nK2R,1\nT3*,0\nA4=,1\nY5F,\nI6V,2\n_wt,1\n"
    done = own_table(text)
    assert done.exit_code == 2
    *_, count, advice = done.stderr.splitlines()
    assert count == "3 problems found"
    assert advice == (
        "--drop nonsense,synonymous,missing leaves rows out: 1 nonsense, 1 synonymous, 1 missing"
    )
    for options in (["--drop", "nonsense, synonymous,missing"], ["--drop"]):
        done = own_table(text, *options)
        assert done.exit_code == 0
        assert "3 variants" in done.stdout
        assert "rows left out: 1 nonsense, 1 synonymous, 1 missing" in done.stdout
        assert "row 7: '_wt' is read as the wild type" in done.stderr
    assert own_table(text, "--drop", "nonsense").exit_code == 2
    assert "nothing called 'stops'" in own_table(text, "--drop", "stops").stderr


def test_data_check_prints_the_first_of_many_problems(own_table):
    done = own_table("mutant,score\n" + "K2R,1\n" * 200)
    assert "199 problems found, the first 50 shown" in done.stderr
    assert done.stderr.count("occurs twice") == 50


def test_data_check_chooses_a_sequence(own_table, tmp_path):
    several = tmp_path / "several.fasta"
    several.write_text(">a\nMKT\n>b\nMKTAYIAKQR\n")
    arguments = ["--fasta", str(several), "--property", "fitness"]
    csv = tmp_path / "scores.csv"
    csv.write_text("mutant,score\nR10K,1\n")
    assert "--record" in inside("data", "check", str(csv), *arguments).stderr
    done = inside("data", "check", str(csv), *arguments, "--record", "b")
    assert "1 variants of 10 residues" in done.stdout


def test_data_list_tells_what_it_does_not_read(tmp_path):
    header = "id,property,protein,target_seq,n_proteins,score_units,sign\n"
    (tmp_path / "MANIFEST.csv").write_text(f"{header}A,fitness,P,MKTA,1,au,higher = better\n")
    (tmp_path / "fitness").mkdir()
    for name in "AB":
        (tmp_path / f"fitness/{name}.csv").write_text("mutant,score\nK2R,1\nT3G,2\n")
    done = inside("data", "list", "--data-dir", str(tmp_path))
    assert done.exit_code == 0
    assert done.stderr == f"{tmp_path}: the manifest does not name fitness/B.csv; not read\n"
    assert "1 assays, 2 measured variants; higher is better everywhere" in done.stdout


def test_data_list_of_proteingym_says_where_higher_is_not_better(tmp_path):
    name = "A4_HUMAN_Seuma_2022"
    header = "DMS_id,UniProt_ID,target_seq,coarse_selection_type\n"
    (tmp_path / "DMS_substitutions.csv").write_text(f"{header}{name},A4_HUMAN,MKTA,Stability\n")
    (tmp_path / f"{name}.csv").write_text("mutant,DMS_score\nK2R,1\n")
    done = inside("data", "list", "--data-dir", str(tmp_path))
    assert f"better, but not in {name} (as in ProteinGym: higher = nucleates" in done.stdout


def test_run_writes_the_executed_copy_where_it_says(notebook, monkeypatch):
    copy = notebook.parent.parent / "book/runs/own/01_a.ipynb"
    for folder, shown in [
        (notebook.parent.parent, "book/runs/own/01_a.ipynb"),
        (notebook.parent, str(copy)),
    ]:
        monkeypatch.chdir(folder)
        done = inside("run", str(notebook), "-p", "seeds", "2", "-p", "shots=[1, 5]")
        assert done.exit_code == 0, done.stderr
        assert done.stdout == f"01_a.ipynb ran; executed copy: {shown}\n"
        assert "2 [1, 5]" in copy.read_text()
        copy.unlink()


def test_run_does_not_replace_its_own_source(notebook, monkeypatch):
    monkeypatch.chdir(notebook.parent)
    source = notebook.read_bytes()
    for output in ("01_a.ipynb", "../notebooks/01_a.ipynb"):
        done = inside("run", str(notebook), "-o", output)
        assert done.exit_code == 2
        assert "the output is the notebook itself" in done.stderr
    # The text that a notebook is paired with is its source as well.
    done = inside("run", str(notebook), "-o", "01_a.md")
    assert (done.exit_code, "name it .ipynb" in done.stderr) == (2, True)
    assert notebook.read_bytes() == source


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["run", "01_a.ipynb"], "-o"),
        (["evaluate"], "--output"),
        (["evaluate"], "--checkpoint-dir"),
        (["evaluate"], "--cache-dir"),
        (["evaluate"], "--log-dir"),
        (["data", "fetch"], "--cache-dir"),
        (["train"], None),
        (["train", "x.safetensors"], "--checkpoint"),
        (["train", "x.safetensors"], "--log-dir"),
    ],
)
def test_an_output_that_cannot_be_written_is_told_before_the_work(
    arguments, option, notebook, monkeypatch
):
    from mutmeta_lib.data.assays import Assay

    def work(*_args, **_options):
        raise AssertionError("the work began")

    monkeypatch.setattr(Assay, "__post_init__", work)
    monkeypatch.setattr("papermill.execute_notebook", work)
    monkeypatch.chdir(notebook.parent)
    # A file in place of a folder stops every user, root as well.
    target = [*([option] if option else []), "01_a.ipynb/out.ipynb"]
    done = inside(*arguments, *target)
    assert done.exit_code == 2
    assert "01_a.ipynb" in done.stderr
    assert "cannot be written" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("parameters", [[], ["-p", "shots", "[1]"]])
def test_run_tells_which_cell_failed(notebook, parameters):
    body = new_code_cell("1 / 0")
    content = nbformat.read(notebook, as_version=4)
    nbformat.write(new_notebook(cells=[*content.cells, body]), notebook)
    done = inside("run", str(notebook), *parameters)
    assert done.exit_code == 1
    assert "ZeroDivisionError" in done.stderr
    assert "01_a.ipynb stopped in cell 3:" in done.stderr


def test_evaluate_prints_methods_side_by_side_and_writes_the_record(monkeypatch, tmp_path):
    import mutmeta_lib.study.few_shot as few_shot

    asked = {}
    real = few_shot.few_shot_experiment

    def experiment(**parameters) -> Record:
        asked.update(parameters)
        columns = ["method", "shots", "mean", "low", "high", "n_assays", "metric"]
        rows = [
            ["maml", 0, 0.123, 0.0512, 0.21, 7, "spearman"],
            ["maml", 5, 0.31, 0.25, 0.38, 7, "spearman"],
            ["ridge", 0, None, None, None, 7, "spearman"],
            ["ridge", 5, 0.41, 0.30, 0.50, 7, "spearman"],
            ["ridge", 5, 0.99, 0.98, 1.0, 7, "ndcg"],
        ]
        return Record(
            experiment="few_shot",
            profile="own",
            parameters={},
            data={"a": "0" * 64},
            encoder={"name": "tiny", "sha256": "ab"},
            environment={},
            seconds={},
            peak_memory_mb=1.0,
            created="2026-11-23T10:00:00+00:00",
            numbers={"n": number(1)},
            tables={"summary": {"columns": columns, "rows": rows}},
        )

    monkeypatch.setattr(few_shot, "few_shot_experiment", experiment)
    output = tmp_path / "record.json"
    done = inside("evaluate", "--methods", "maml,ridge", "--shots", "0,5", "--output", str(output))
    assert done.exit_code == 0, done.output
    rows = [line.split("│")[1:-1] for line in done.stdout.splitlines() if "│" in line]
    cells = [[cell.strip() for cell in row] for row in rows]
    assert ["maml", "0.12 [0.05, 0.21]", "0.31 [0.25, 0.38]"] in cells
    assert ["ridge", "not defined", "0.41 [0.30, 0.50]"] in cells
    assert "0.99" not in done.stdout
    assert (asked["shots"], asked["methods"]) == ([0, 5], ["maml", "ridge"])
    assert set(asked) <= set(inspect.signature(real).parameters)
    assert read_record(output).experiment == "few_shot"


def test_the_help_of_evaluate_names_every_method():
    from mutmeta_lib.learn.methods import METHODS

    words = set(re.findall(r"\w+", inside("evaluate", "--help").output))
    assert set(METHODS) <= words
