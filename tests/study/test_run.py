"""The runner: what learns sees no test label, a stopped run goes on to the same numbers."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import nullcontext, suppress
from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
import pytest
import torch

from mutmeta_lib.errors import DataError, Diverged
from mutmeta_lib.learn.methods import GRID, METHODS, STARTS
from mutmeta_lib.learn.train import OuterLoop
from mutmeta_lib.models.zero_shot import MASKED
from mutmeta_lib.records.record import read_record
from mutmeta_lib.study import case as module
from mutmeta_lib.study import run as runner
from mutmeta_lib.study.benchmark import ARMS, benchmark
from mutmeta_lib.study.case import Where
from mutmeta_lib.study.run import average_seeds, recorded, run
from mutmeta_lib.study.study import Study, grid

STUDY = Study(
    per_protein=1, cap=60, n_folds=3, folds=(0, 1), seeds=1, shots=(0, 5), decided_at=5, pool=10,
    methods=("maml", "finetune", "ridge"), max_query=12, meta_steps=2, tasks_per_step=2, support=4,
    query=4, inner_steps=1, adapt_steps=2, validate_every=1, reads=grid(encoder="tiny"),
)  # fmt: skip
SITES = [name for name, method in METHODS.items() if method.start == "ranker"]
ON_SITES = replace(
    STUDY, regime="rotations", methods=(*SITES, "maml", "finetune", "onehot"), folds=(0,), draws=2,
    reads=grid(
        encoder="tiny", encoding=["no_encoder", "wild_type_pass"], swap=["same", "untold"]
    ), members=2,
    schedule="one_cycle", dropout=True, weight_decay=0.1, shots=(0, 1, 5), cap=0,
)  # fmt: skip
TIMES = ["seconds_adapt", "seconds_predict", "seconds"]


def told(found, name, where="index == index"):
    """One of a result's tables without its times."""
    return getattr(found, name).query(where).drop(columns=TIMES, errors="ignore")


def same(found, wanted):
    for name in ("rows", "choices", "history"):
        pd.testing.assert_frame_equal(told(found, name), told(wanted, name), check_exact=True)
    assert found.diverged == wanted.diverged


def parts(folder):
    return set(folder.glob("*.safetensors"))


@pytest.fixture(scope="module")
def straight():
    return run(STUDY)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    where = Where(store=str(tmp_path_factory.mktemp("trained")))
    run(STUDY, where=where)
    return where


def test_no_test_label_reaches_training_or_tuning(straight, monkeypatch):
    real, scores = runner.read_assays, np.random.default_rng(0)
    tested = set(straight.rows.query("case == 'fold 1'")["assay"])

    def scrambled(study):
        assays, roles = real(study)
        return [
            replace(a, scores=scores.normal(size=len(a))) if a.id in tested else a for a in assays
        ], roles

    monkeypatch.setattr(module, "read_assays", scrambled)
    monkeypatch.setattr(runner, "read_assays", scrambled)
    module.prepare.cache_clear()
    other = run(replace(STUDY, folds=(0,)))
    module.prepare.cache_clear()
    for name in ("choices", "history"):
        kept = told(straight, name, "case == 'fold 1'")
        pd.testing.assert_frame_equal(told(other, name), kept)
    mine = straight.rows.query("case == 'fold 1' and method == 'maml'")["spearman"].tolist()
    assert mine != other.rows.query("method == 'maml'")["spearman"].tolist()


def test_every_method_of_the_table_can_be_studied():
    names = [name for name in METHODS if name not in (*MASKED, "joint", *SITES)]
    asked = {"methods": names, "folds": (0,), "shots": (0, 2, 5), "by_error": ("maml",)}
    before = torch.get_rng_state()
    found = run(replace(STUDY, **asked, reads=grid(depth="all", max_tokens=40)))
    assert torch.equal(before, torch.get_rng_state()), "torch's randomness is left alone"
    assert set(found.rows["method"]) == {*names, "maml_mse"}
    assert found.rows["spearman"].between(-1, 1).all()
    assert found.rows.query("shots == 0")["relative_mse"].isna().all()
    ranks = found.rows.query("method == 'maml_rank'")
    assert ranks[["mse", "mae"]].isna().all(axis=None)
    trained = {name for name, start in STARTS.items() if start.algorithm} - {"joint", "ranker"}
    assert set(found.history["method"]) == trained
    assert {f"meta_training_{name}" for name in trained} <= set(found.seconds)
    tuned = found.choices.groupby("method")
    assert set(tuned.groups) == {entry.rate for entry in METHODS.values() if entry.rate}
    for name, own in tuned:  # one grid for all, but for who has learned its rates
        assert tuple(zip(own["optimiser"], own["lr"], strict=True)) == METHODS[name].grid
        assert (METHODS[name].grid is GRID) == (name != "metasgd")


def test_sites_are_read_learned_on_and_told_of_their_property_or_not():
    found = run(ON_SITES)
    rows = found.rows.set_index("method")
    assert set(rows.index) == set(ON_SITES.methods)
    assert set(zip(rows["encoder"], rows["encoding"], strict=True)) == {
        ("none", "no_encoder"),
        ("tiny", "wild_type_pass"),
    }
    assert set(rows["seed"]) == {0, 1}
    values = rows.pivot_table("spearman", ["method", "encoding", "assay", "seed", "shots"], "swap")
    changed = (values["same"] != values["untold"]).groupby("method").mean()
    assert changed["ranker"] > 0.3
    assert changed[["onehot", "ridge_zero"]].tolist()[0] == 0
    covered = rows.query("shots == 5")["coverage"]
    assert covered["ranker"].between(0, 1).all()
    assert covered["onehot"].isna().all()
    assert not rows.query("shots == 0").loc["ranker", "spearman"].eq(0).any()
    same(run(ON_SITES), found)


def test_sites_are_scaled_by_those_of_meta_training_alone():
    assays, _ = runner.read_assays(ON_SITES)
    prepared = module.prepare(ON_SITES, ON_SITES.reads[0], "cpu", None).vectors
    train = [assays[0].id, assays[-1].id]
    sites = torch.cat([prepared.assays[name].tokens.sites for name in train])
    trunk = module.on_trunk(prepared, train, 0, "cpu").predictor.encoder.module
    torch.testing.assert_close(trunk.location, sites.mean(dim=0))
    torch.testing.assert_close(trunk.scale, sites.std(dim=0) + 1e-6)


@pytest.mark.parametrize("name", sorted(ARMS))
def test_a_benchmark_has_a_row_for_everything_and_says_what_it_read(tmp_path, name):
    small = {field: getattr(ON_SITES, field) for field in ("folds", "draws", "cap", "members")}
    for field in ("n_folds", "shots", "decided_at", "pool", "meta_steps", "support", "per_protein"):
        small[field] = getattr(STUDY, field)
    changes = small | {
        "selection": "",
        "tasks_per_step": 2,
        "outer_rates": (),
        "max_query": 12,
        "query": 4,
    }
    arms = ARMS[name]("demo", "tiny")
    if name == "benchmark_ablations":
        arms.pop("property left out")  # the demo's three properties would take a minute
        changes["properties"] = ("solubility",)
    found = benchmark(name, "demo", "tiny", path=tmp_path / "r.json", **changes)
    told = ["arm", "read", "swap", "method"]
    asked = {
        (arm, read.encoding, read.swap, method)
        for arm, study in arms.items()
        for read in study.reads
        for method in study.methods
    }
    for table in ("results", "means"):
        rows = found.table(table)
        there = {tuple(row) for row in rows[told].to_numpy() if row[0] != "property left out"}
        assert there == asked
    assert read_record(tmp_path / "r.json").digest == found.digest
    groups = set(found.table("means")["group"])
    assert {"all", "ProteinGym", "fitness"} <= groups
    assert ("by_seed" in found.tables) == any(study.seeds > 1 for study in arms.values())
    if name == "benchmark_seeds":
        keys = ["method", "shots"]
        by_seed = found.table("by_seed").groupby(["seed", *keys])["mean"].first().unstack("seed")
        together = found.table("over_joint").set_index(keys)["mean"].loc[by_seed.index]
        assert sorted(by_seed) == list(range(5))
        np.testing.assert_allclose(by_seed.mean(axis=1), together, atol=2e-5)
    with pytest.raises(DataError, match="there is no benchmark 'x'"):
        benchmark("x", "demo", "tiny")


def test_rates_and_steps_are_those_of_the_deciding_number_of_labels_that_is_nearest():
    asked = {"methods": ("maml", "metasgd", "finetune"), "by_error": ("maml",), "inner_lr": 0.1}
    study = replace(STUDY, **asked, folds=(0,), shots=(0, 3, 5, 10), adapt_steps=(1, 30))
    both = run(replace(study, decided_at=(10, 3)))
    alone = {k: run(replace(study, decided_at=k)) for k in (3, 10)}
    for name, own in both.choices.groupby("method"):
        tried = set(own[["labels", "optimiser", "lr", "steps"]].itertuples(index=False, name=None))
        grid = product((3, 10), METHODS[name].grid, (1, 30))
        assert tried == {(k, *rate, steps) for k, rate, steps in grid}
    each = pd.concat([alone[k].choices for k in (3, 10)], ignore_index=True)
    pd.testing.assert_frame_equal(both.choices, each)
    for k, shots in ((3, [0, 3, 5]), (10, [10])):
        rows = [told(one, "rows", f"shots in {shots}") for one in (both, alone[k])]
        pd.testing.assert_frame_equal(*(one.reset_index(drop=True) for one in rows))
        assert "maml_mse" in set(rows[0]["method"])
    values = [told(alone[k], "rows", "shots == 5")["spearman"].tolist() for k in (3, 10)]
    assert values[0] != values[1], "the choices differ"


def test_starts_choose_their_outer_rates_on_validation_loss():
    rates = ((0.03, 5e-4), (0.01, 1e-1))
    found = run(replace(STUDY, folds=(0,), outer_rates=rates))
    tried = found.choices.query("what == 'meta-training'")
    assert set(zip(tried["inner_lr"], tried["meta_lr"], strict=True)) == set(rates)
    best = tried.loc[tried["validation_loss"].idxmin()]
    assert best["chosen"] == "validation_loss"
    assert (tried["chosen"] == "validation_loss").sum() == 1
    assert found.history["validation_loss"].min() == best["validation_loss"]


def test_outer_rates_that_diverge_are_told_and_not_chosen(tmp_path):
    study = replace(STUDY, folds=(0,), methods=("maml",), outer_rates=((1e30, 5e-4), (0.03, 5e-4)))
    path = tmp_path / "record.json"
    record, _ = recorded("few", study, path=path, where=Where(store=str(tmp_path)))
    tried = read_record(path).table("choices").query("what == 'meta-training'")
    assert dict(zip(tried["inner_lr"], tried["chosen"], strict=True)) == {
        0.03: "validation_loss",
        1e30: "",
    }
    assert not np.isfinite(tried.set_index("inner_lr").loc[1e30, "validation_loss"])
    alone = run(replace(study, outer_rates=study.outer_rates[1:]))
    assert record.table("results")["spearman"].tolist() == alone.rows["spearman"].round(5).tolist()
    with pytest.raises(Diverged, match="not finite at meta-step 1"):
        run(replace(study, outer_rates=study.outer_rates[:1]))


def test_a_swapped_encoder_is_read_in_testing_alone():
    asked = {"regime": "around", "test_ids": ("GB1_NISTHAL2019_on_WT",), "per_protein": 2}
    study = replace(STUDY, **asked, reads=grid(swap=["same", "noise 1.0"]))
    both = run(study)
    alone = run(replace(study, reads=grid(swap="noise 1.0")))
    assert set(both.rows["assay"]) == {"GB1_NISTHAL2019_on_WT"}
    assert len(both.history) == len(alone.history)
    noisy = both.rows.query("swap == 'noise 1.0'")["spearman"].tolist()
    assert noisy == alone.rows["spearman"].tolist()
    assert noisy != both.rows.query("swap == 'same'")["spearman"].tolist()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"methods": ("maml", "zero_shot")}, "has no language-model head"),
        ({"reads": grid(depth="last-0")}, "'last-0' is no depth of small"),
    ],
)
def test_what_an_encoder_has_not_is_refused_before_anything_is_trained(asked, said, monkeypatch):
    monkeypatch.setattr(module, "meta_train", None)
    with pytest.raises(DataError, match=said):
        run(replace(STUDY, **asked))


class Stopped(Exception):
    pass


@pytest.mark.parametrize("place", ["meta_train", "grid_scores", "evaluate"])
@pytest.mark.filterwarnings("error:.*computed anew")
def test_a_stopped_run_goes_on_to_the_same_numbers(place, straight, tmp_path, monkeypatch):
    where = Where(store=str(tmp_path))
    real, calls = getattr(module, place), []

    def counted(*given, **more):
        if len(calls) == 1:
            raise Stopped
        calls.append(place)
        return real(*given, **more)

    with monkeypatch.context() as patched:
        patched.setattr(module, place, counted)
        with pytest.raises(Stopped):
            run(STUDY, where=where)
    same(run(STUDY, where=where), straight)
    for name in ("meta_train", "grid_scores", "evaluate"):
        monkeypatch.setattr(module, name, None)  # all is kept
    same(run(STUDY, where=where), straight)


def test_processes_caches_and_what_another_question_kept_change_nothing(straight, tmp_path):
    where = Where(workers=2, store=str(tmp_path / "a"), cache_dir=str(tmp_path / "b"))
    other = run(replace(STUDY, adapt_steps=1), where=where)
    same(run(STUDY, where=where), straight)
    assert not other.rows["spearman"].equals(straight.rows["spearman"])
    assert list((tmp_path / "b").rglob("*"))


@pytest.mark.parametrize(
    ("changes", "trains"),
    [
        ({"methods": ("maml_1", "onehot"), "by_error": ("maml",)}, False),
        ({"shots": (0, 3, 10), "draws": 2, "max_query": 9}, False),
        ({"decided_at": (3, 8), "adapt_steps": (1, 3), "tuning_assays": 1}, False),
        ({"n_folds": 3, "folds": (0,), "seeds": 1}, False),
        ({"methods": ("fomaml",)}, True),
        ({"seed": 1}, True),
        ({"folds": (2,)}, True),
        ({"cap": 59}, True),
        ({"labels": "measured"}, True),
        ({"reads": grid(encoding="mutant")}, True),
        ({"reads": grid(depth="raw head")}, True),
        ({"meta_steps": 3}, True),
        ({"outer_rates": ((0.03, 1e-3),)}, True),
        ({"dropout": True}, True),
    ],
)
def test_a_start_is_trained_again_only_for_what_its_training_depends_on(
    changes, trains, straight, trained, monkeypatch
):
    def stop(*given):
        raise Stopped

    monkeypatch.setattr(OuterLoop, "step", stop)
    with pytest.raises(Stopped) if trains else nullcontext():
        found = run(replace(STUDY, **changes), where=trained)
        again = told(straight, "history", f"case in {list(found.history['case'].unique())}")
        pd.testing.assert_frame_equal(told(found, "history"), again)


def test_progress_is_told_of_every_part_and_the_cause_of_an_end(monkeypatch):
    seen = []
    report = nullcontext(lambda *one: seen.append(one))
    monkeypatch.setattr(runner, "shown_progress", lambda: report)
    run(STUDY)
    assert [one for one in seen if one[0] == "runs"] == [("runs", n, 2) for n in range(3)]
    assert {what.rpartition(": ")[2] for what, *_ in seen} == {"runs", "maml", "test"}
    with pytest.raises(DataError, match="'last-9' is no depth of small"):  # from another process
        run(replace(STUDY, reads=grid(depth="last-9")), where=Where(workers=2))


@pytest.mark.skipif(not shutil.which("pgrep"), reason="looks for processes with pgrep")
def test_a_killed_worker_costs_no_finished_work(straight, tmp_path):
    def kill():
        while not parts(tmp_path):
            time.sleep(0.01)
        os.kill(int(workers()[0]), signal.SIGKILL)

    def workers():
        asked = ["pgrep", "-P", str(os.getpid()), "-f", "popen_loky"]
        return subprocess.run(asked, capture_output=True, text=True).stdout.split()

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    with pytest.raises(DataError, match=r"a worker process was killed after [01] of 2 runs"):
        run(STUDY, where=Where(workers=2, store=str(tmp_path)))
    thread.join()
    assert not workers()
    kept = {file: file.read_bytes() for file in parts(tmp_path)}
    same(run(STUDY, where=Where(store=str(tmp_path))), straight)
    assert all(file.read_bytes() == content for file, content in kept.items())


@pytest.mark.skipif(os.name != "posix", reason="asks for the processes of a group")
def test_ctrl_c_ends_the_command_and_its_workers_with_one_sentence(tmp_path):
    asked = "-m mutmeta_lib.cli evaluate --per-protein 1 --methods maml,ridge --shots 2 --seeds 9"
    asked += f" --meta-steps 1 --device cpu --workers 2 --checkpoint-dir {tmp_path}"
    command = [sys.executable, *asked.split()]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, start_new_session=True, **pipes)
    while not parts(tmp_path):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert "Traceback" not in told
    assert re.search(rf"stopped after \d of 27 runs; start again to go on from {tmp_path}\n", told)
    with suppress(ProcessLookupError):
        for _ in range(500):  # those told to end are given a moment
            os.killpg(process.pid, 0)
            time.sleep(0.02)
        pytest.fail("a process of the run lives on")


def test_a_record_is_loaded_only_for_the_same_study(tmp_path, monkeypatch):
    path = tmp_path / "few_shot.json"
    study = replace(STUDY, methods=("ridge",), folds=(0,))
    record, loaded = recorded("few_shot", study, path=path, profile="own")
    again, reloaded = recorded("few_shot", study, path=path, recompute=False)
    assert (loaded, reloaded) == (False, True)
    assert read_record(path).digest == again.digest == record.digest
    assert len(record.table("results")) == 2 * record.table("results")["assay"].nunique()
    monkeypatch.setattr(runner, "run", lambda *given, **more: (_ for _ in ()).throw(Stopped))
    for other, anew in ((replace(study, seeds=7), False), (study, True)):
        with pytest.raises(Stopped):
            recorded("few_shot", other, path=path, recompute=anew)


def test_seeds_are_averaged_and_nothing_else(straight):
    twice = pd.concat([straight.rows, straight.rows.assign(seed=1, spearman=0.0)])
    made = average_seeds(twice)
    assert (made["n_seeds"] == 2).all()
    assert len(made) == len(straight.rows)
    keys = ["method", "assay", "shots"]
    halves = straight.rows.set_index(keys)["spearman"] / 2
    pd.testing.assert_series_equal(made.set_index(keys)["spearman"], halves)
    old = average_seeds(twice.drop(columns=["coverage", "hits_10"]))
    pd.testing.assert_frame_equal(old, made.drop(columns=["coverage", "hits_10"]))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_ranks(straight):
    found = run(STUDY, where=Where(device="cuda"))
    np.testing.assert_allclose(found.rows["spearman"], straight.rows["spearman"], atol=0.02)
