import json

import pytest
import torch
from typer.testing import CliRunner

from mutmeta_lib.cli import app
from mutmeta_lib.records.store import load, load_newest

SMALL = ["--steps", "2", "--tasks-per-step", "1", "--support", "4", "--query", "4"]
SMALL += ["--inner-steps", "1", "--device", "cpu", "--fold", "0"]


def train(*arguments):
    return CliRunner().invoke(app, ["train", *map(str, arguments)])


def test_a_start_is_written_with_what_it_comes_from_and_can_be_gone_on_with(tmp_path):
    output, checkpoint = tmp_path / "start.safetensors", tmp_path / "run.safetensors"
    logs = tmp_path / "logs"
    arguments = (output, *SMALL, "--checkpoint", checkpoint, "--log-dir", logs)
    done = train(*arguments)
    assert done.exit_code == 0, done.output
    assert "maml: 2 steps on" in done.stdout
    params, origin = load(output)
    assert {name.split(".")[0] for name in params} == {"encoder", "head"}
    assert origin["settings"]["steps"] == 2
    assert (origin["encoder"]["name"], origin["encoding"]) == ("tiny", "separator")
    assert origin["data"]
    assert str(tmp_path) not in json.dumps(origin)
    assert any(logs.iterdir())
    history = load_newest(checkpoint)[1]["history"]
    again = train(*arguments)
    assert again.exit_code == 0
    assert load_newest(checkpoint)[1]["history"] == history, "nothing was left to do"
    torch.testing.assert_close(load(output)[0], params, rtol=0, atol=0)


def test_an_assay_too_small_for_a_task_is_left_out_and_named(tmp_path):
    wild_type = "MKTAYIAKQR"
    manifest = "id,property,protein,target_seq,n_proteins,score_units,sign\n"
    (tmp_path / "fitness").mkdir()
    for name, n in (("A", 26), ("B", 25)):
        manifest += f"{name},fitness,{name},{wild_type},1,au,higher = better\n"
        mutants = [f"{old}{at}{new}" for at, old in enumerate(wild_type, 1) for new in "DEW"]
        rows = [f"{mutant},{score}" for score, mutant in enumerate(mutants[:n])]
        (tmp_path / f"fitness/{name}.csv").write_text("\n".join(["mutant,score", *rows]))
    (tmp_path / "MANIFEST.csv").write_text(manifest)
    few = ["--steps", "1", "--tasks-per-step", "1", "--inner-steps", "1", "--device", "cpu"]
    done = train(tmp_path / "start.safetensors", *few, "--data-dir", tmp_path)
    assert done.exit_code == 0, done.output
    told = "left out, with fewer variants than support and query, 26: B (25)\n"
    assert (done.stderr, "1 steps on 1 assays" in done.stdout) == (told, True)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("--algorithm protonet", "unknown algorithm 'protonet'; choose from maml"),
        ("--encoding seperator", "there is no encoding 'seperator'"),
        ("--precision float16", "unknown precision 'float16'"),
        ("--backend jax", "there is no backend 'jax'; use one of auto, autograd"),
        ("--device tpu", "no device 'tpu'"),
        ("--fold 3 --folds 3", "--fold 3 is not one of 3; use 0 to 2"),
        ("--data-dir nowhere", "MANIFEST.csv"),
    ],
)
def test_bad_input_is_one_sentence(tmp_path, wrong, told):
    done = train(tmp_path / "start.safetensors", *wrong.split())
    assert done.exit_code == 2
    assert told in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())
