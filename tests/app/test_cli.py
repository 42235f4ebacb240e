"""The command line, as a process and in one: what it prints, and how it fails."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from toy_sweep import write_notebook
from typer.testing import CliRunner

from mutmeta_lib.cli import app
from mutmeta_lib.data.folders import read_data_dir
from mutmeta_lib.learn.train import OuterLoop
from mutmeta_lib.records.store import checksum, load
from mutmeta_lib.study.benchmark import SHIPPED

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200", "NO_COLOR": "1"}
HEAVY = "torch pandas numpy scipy transformers papermill nbformat ray matplotlib joblib"


def process(*words: str) -> subprocess.CompletedProcess:
    """Run Python in a process of its own."""
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, env=ENVIRONMENT)


def inside(*arguments: str):
    """Run the command within this process, which imports torch once."""
    return CliRunner().invoke(app, [*map(str, arguments)], env={"COLUMNS": "200", "NO_COLOR": "1"})


@pytest.fixture
def notebook(tmp_path: Path) -> Path:
    cells = ["seeds = 1\nshots = [0]", "print(seeds, shots)", "1 / (seeds - 3)"]
    return write_notebook(tmp_path / "notebooks/01_a.ipynb", *cells)


@pytest.mark.parametrize("command", ["", "data check", "run", "sweep", "train", "evaluate"])
def test_help_imports_nothing_heavy(command):
    code = (
        "import sys; from mutmeta_lib.cli import app\n"
        f"app([*{command.split()}, '--help'], standalone_mode=False)\n"
        "print('loaded', sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    loaded = process("-c", code).stdout.splitlines()[-1]
    assert "'typer'" in loaded
    assert [name for name in HEAVY.split() if f"'{name}'" in loaded] == []


def test_the_readme_shows_real_output():
    readme = (Path(__file__).resolve().parents[2] / "README.md").read_text()
    command, _, shown = readme.partition("$ mutmeta ")[2].partition("```")[0].partition("\n")
    printed = inside(*command.split()).stdout
    assert [line.rstrip() for line in printed.splitlines()] == shown.splitlines()


def test_bad_input_of_a_process_is_one_sentence_and_exit_code_2():
    done = process("-m", "mutmeta_lib.cli", "encode", "MKTA", "T30G")
    told = "position 30 lies outside the wild type (4 residues); check the numbering offset\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", told)
    assert re.fullmatch(r"mutmeta \d+\.\d+\.\d+\n", inside("--version").stdout)


BAD_INPUT = """
encode MKTA T3G --encoding seperator         | no encoding 'seperator'
encode MKTA T3G --encoder ./nowhere          | nowhere
encode nowhere.fasta T3G                     | the file does not exist
data list --data-dir nowhere                 | MANIFEST.csv
data list --property colour                  | 'colour' is not a property
data check x.csv --property stability --wild-type MK | x.csv
run nowhere.ipynb                            | no notebook 'nowhere.ipynb'
run 01_a.ipynb -p seed 3       | 01_a.ipynb: there is no parameter 'seed'; did you mean 'seeds'?
run 01_a.ipynb -o ../notebooks/01_a.ipynb    | the output is the notebook itself
run 01_a.ipynb -o 01_a.md                    | name it .ipynb
evaluate --metric accuracy                   | no metric 'accuracy'; use one of spearman
evaluate --shots 5,0,05                      | --shots got '5,0,05'; write different whole numbers
evaluate --methods maml,rigde                | no method 'rigde'; use one of maml
evaluate --study bench                       | no study 'bench'; use one of benchmark
evaluate --device tpu                        | no device 'tpu'
train x --algorithm protonet                 | unknown algorithm 'protonet'; choose from maml
train x --encoding seperator                 | there is no encoding 'seperator'
train x --precision float16                  | unknown precision 'float16'
train x --backend jax                        | no backend 'jax'; use one of auto, autograd
train x --fold 3 --folds 3                   | --fold 3 is not one of 3; use 0 to 2
train x --algorithm maml --members 2         | a start by maml is one network
train x --algorithm ranker                   | learns on sites, and this predictor reads texts
train x --encoding no_encoder --backend jax  | no backend 'jax'; use one of auto, autograd
"""


@pytest.mark.parametrize("line", BAD_INPUT.strip().splitlines())
def test_bad_input(line, notebook, monkeypatch):
    arguments, _, told = line.partition(" | ")
    monkeypatch.chdir(notebook.parent)
    source = notebook.read_bytes()
    done = inside(*arguments.split())
    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert told.strip() in done.stderr
    assert [path for path in notebook.parents[1].rglob("*") if path.is_file()] == [notebook]
    assert notebook.read_bytes() == source


@pytest.fixture
def own_table(tmp_path):
    """Check a table against MKTAYIAKQR, one of two sequences of a FASTA file."""
    (tmp_path / "two.fasta").write_text(">a\nMKT\n>b\nMKTAYIAKQR\n")

    def check(text, *options, record=("--record", "b")):
        (tmp_path / "scores.csv").write_text(text)
        given = [str(tmp_path / "scores.csv"), "--fasta", str(tmp_path / "two.fasta")]
        return inside("data", "check", *given, "--property", "fitness", *record, *options)

    return check


def test_data_check_lists_every_problem_or_says_that_there_is_none(own_table):
    done = own_table("mutant,score\nK2R,1\nR10K,2.5\n")
    assert done.exit_code == 0
    assert "2 variants of 10 residues, scores from 1 to 2.5; nothing to mend" in done.stdout
    assert "--record" in own_table("mutant,score\nK2R,1\n", record=()).stderr
    done = inside("data", "check", "x.csv", "--property", "fitness")
    assert (done.exit_code, "--wild-type" in done.stderr) == (2, True)
    done = own_table("mutant,score\nK2R,1\nT3G,\nA2G,1\n")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.splitlines()[2] == "2 problems found"
    done = own_table("mutant,score\n" + "K2R,1\n" * 200)
    assert "199 problems found, the first 50 shown" in done.stderr
    assert done.stderr.count("occurs twice") == 50


def test_data_check_leaves_rows_out_and_counts_them(own_table):
    text = "mutant,score\nK2R,1\nT3*,0\nA4=,1\nY5F,\nI6V,2\n_wt,1\n"
    counts = "rows out: 1 nonsense, 1 synonymous, 1 missing"
    assert f"--drop nonsense,synonymous,missing leaves {counts}" in own_table(text).stderr
    for options in (["--drop", "nonsense, synonymous,missing"], ["--drop"]):
        done = own_table(text, *options)
        assert done.exit_code == 0
        assert "3 variants" in done.stdout
        assert "rows left out: 1 nonsense, 1 synonymous, 1 missing" in done.stdout
        assert "row 7: '_wt' is read as the wild type" in done.stderr
    assert own_table(text, "--drop", "--record", "b", record=()).exit_code == 0
    assert "'stops' cannot be dropped" in own_table(text, "--drop", "stops").stderr


def test_data_list_shows_the_assays_and_where_higher_is_not_better(tmp_path):
    done = inside("data", "list", "--property", "stability")
    assert (done.exit_code, done.stderr) == (0, "")
    assert "10.1073/pnas.1903888116" in done.stdout
    assert "higher is better everywhere" in done.stdout
    header, name = "DMS_id,UniProt_ID,target_seq,coarse_selection_type\n", "A4_HUMAN_Seuma_2022"
    (tmp_path / "DMS_substitutions.csv").write_text(f"{header}{name},A4_HUMAN,MKTA,Stability\n")
    (tmp_path / f"{name}.csv").write_text("mutant,DMS_score\nK2R,1\n")
    (tmp_path / "B.csv").write_text("")
    done = inside("data", "list", "--data-dir", tmp_path)
    assert re.fullmatch(r".* does not name B\.csv; not read\n", done.stderr)
    assert f"better, but not in {name} (as in ProteinGym: higher = nucleates" in done.stdout


def test_run_writes_the_executed_copy_where_it_says(notebook, monkeypatch):
    monkeypatch.chdir(notebook.parent.parent)
    done = inside("run", notebook, "-p", "seeds", "2", "-p", "shots=[1, 5]")
    assert done.exit_code == 0, done.stderr
    assert done.stdout == "01_a.ipynb ran; executed copy: book/runs/own/01_a.ipynb\n"
    assert "2 [1, 5]" in Path("book/runs/own/01_a.ipynb").read_text()


def test_run_tells_which_cell_failed_and_leaves_the_older_copy_alone(notebook):
    output = notebook.with_name("out.ipynb")
    output.write_text("older")
    fails = inside("run", notebook, "-o", output, "-p", "seeds", "3")
    notebook.write_text(notebook.read_text().replace("seeds = 1", "seeds = 3"))
    for done in (fails, inside("run", notebook, "-o", output)):
        assert (done.exit_code, "ZeroDivisionError" in done.stderr) == (1, True)
        assert "01_a.ipynb stopped in cell 4:" in done.stderr
    assert output.read_text() == "older"
    assert {path.name for path in notebook.parent.iterdir()} == {"01_a.ipynb", "out.ipynb"}


@pytest.mark.parametrize(
    "arguments",
    [
        "run 01_a.ipynb -o",
        *[f"evaluate --{name}" for name in ("output", "checkpoint-dir", "cache-dir")],
        "data fetch --cache-dir",
        *[f"train{option}" for option in ("", " x --checkpoint")],
    ],
)
def test_an_output_that_cannot_be_written_is_told_before_the_work(arguments, notebook, monkeypatch):
    def work(*_args, **_options):
        raise AssertionError("the work began")

    monkeypatch.setattr("mutmeta_lib.data.assays.Assay.__post_init__", work)
    monkeypatch.setattr("papermill.execute_notebook", work)
    monkeypatch.chdir(notebook.parent)
    # A file in place of a folder stops every user, root as well.
    done = inside(*arguments.split(), "01_a.ipynb/out.ipynb")
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert re.search("01_a.ipynb.*cannot be written", done.stderr)


def test_evaluate_prints_methods_side_by_side_and_writes_the_record(monkeypatch, tmp_path):
    asked = {}

    def recorded(name, study, **more):
        asked.update(more, study=study)
        columns = ["method", "shots", "mean", "low", "high", "n_assays", "metric"]
        rows = [
            ["maml", 1, 0.31, 0.25, 0.38, 7, "spearman"],
            ["ridge", 0, None, None, None, 7, "spearman"],
            ["ridge", 1, 0.41, 0.30, 0.50, 7, "spearman"],
            ["ridge", 1, 0.99, 0.98, 1.0, 7, "ndcg"],
        ]
        return SimpleNamespace(table=lambda name: pd.DataFrame(rows, columns=columns)), False

    monkeypatch.setattr("mutmeta_lib.study.run.recorded", recorded)
    output = tmp_path / "record.json"
    options = ["--methods", "maml,ridge", "--shots", "0,1", "--folds", "4", "--max-query", "0"]
    done = inside("evaluate", *options, "--output", str(output))
    assert done.exit_code == 0, done.output
    rows = [re.split(r" *│ *", line) for line in done.stdout.splitlines() if "│" in line]
    assert [row[1:-1] for row in rows] == [
        ["maml", "not defined", "0.31 [0.25, 0.38]"],
        ["ridge", "not defined", "0.41 [0.30, 0.50]"],
    ]
    assert {"0 shots", "1 shot"} <= set(re.findall(r"\d shots?", done.stdout))
    assert "7 test assays, 2 seeds, encoder small, separator" in done.stdout
    study = asked["study"]
    assert (study.shots, study.methods, study.n_folds) == ((0, 1), ("maml", "ridge"), 4)
    assert (study.max_query, study.per_protein, asked["path"]) == (0, 4, output)


SMALL = "--steps 2 --tasks-per-step 1 --support 4 --query 4 --inner-steps 1 --device cpu"


def test_train_writes_a_start_with_what_it_comes_from_and_a_checkpoint(tmp_path):
    output, checkpoint = tmp_path / "start.safetensors", tmp_path / "run.safetensors"
    done = inside("train", output, *SMALL.split(), "--fold", "0", "--checkpoint", checkpoint)
    assert done.exit_code == 0, done.output
    assert "maml: 2 steps on" in done.stdout
    params, origin = load(output)
    assert {name.split(".")[0] for name in params} == {"encoder", "head"}
    assert origin["settings"]["steps"] == 2
    assert (origin["encoder"]["name"], origin["encoding"]) == ("small", "separator")
    assert origin["data"]
    assert str(tmp_path) not in json.dumps(origin)
    assert len(load(checkpoint)[1]["history"]) == 2


def test_train_leaves_an_assay_too_small_for_a_task_out_and_names_it(tmp_path):
    (tmp_path / "fitness").mkdir()
    manifest = "id,property,protein,target_seq,n_proteins,score_units,sign\n"
    for name, n in (("A", 8), ("B", 7)):
        manifest += f"{name},fitness,{name},MKTAYIAK,1,au,higher = better\n"
        rows = [f"{old}{at}W,{at}" for at, old in enumerate("MKTAYIAK", 1)][:n]
        (tmp_path / f"fitness/{name}.csv").write_text("\n".join(["mutant,score", *rows]))
    (tmp_path / "MANIFEST.csv").write_text(manifest)
    done = inside("train", tmp_path / "start.safetensors", *SMALL.split(), "--data-dir", tmp_path)
    assert done.exit_code == 0, done.output
    told = "left out, with fewer variants than support and query, 8: B (7)\n"
    assert (done.stderr, "2 steps on 1 assays" in done.stdout) == (told, True)


@pytest.mark.parametrize(
    ("read", "algorithm"), [("no_encoder", "ranker"), ("wild_type_pass", "maml")]
)
def test_train_on_sites_asks_what_the_benchmark_asks_and_goes_on_from_a_checkpoint(
    tmp_path, monkeypatch, read, algorithm
):
    words = f"--encoding {read} --algorithm {algorithm} --tasks-per-step 2 --fold 0".split()
    words += ["--members", "2"] if algorithm == "ranker" else []
    whole, again = tmp_path / "whole.safetensors", tmp_path / "again.safetensors"
    done = inside("train", whole, *words, "--steps", "3")
    assert done.exit_code == 0, done.output
    told = ", 2 networks, start" if algorithm == "ranker" else " assays, start"
    assert f"{algorithm}: 3 steps on" in done.stdout
    assert told in done.stdout
    tensors, about = load(whole)
    asked = {name: about["settings"][name] for name in ("support", "query", "schedule", "dropout")}
    assert asked == {name: getattr(SHIPPED, name) for name in asked}
    assert about["settings"]["meta_lr"] == SHIPPED.outer_rates[0][1]
    assert about["data"] == {a.id: a.sha256 for a in read_data_dir() if a.id in about["data"]}
    numbers = {name for name in tensors if name.startswith("trunk.")}
    assert numbers == {"trunk.location", "trunk.scale"}
    real = OuterLoop.validate

    def killed(outer, state, tasks):
        if state.step == 2:
            raise KeyboardInterrupt
        return real(outer, state, tasks)

    options = [*words, "--steps", "3", "--checkpoint", tmp_path / "run", "--checkpoint-every", "1"]
    with monkeypatch.context() as patch:
        patch.setattr(OuterLoop, "validate", killed)
        assert inside("train", again, *options).exit_code == 130
    assert len(load(tmp_path / "run")[1]["history"]) == 1
    assert inside("train", again, *options).exit_code == 0
    assert checksum(load(again)[0]) == checksum(tensors)
