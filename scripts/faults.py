"""Seed faults into the library, one at a time, and see whether the tests notice.

``python scripts/faults.py`` (``make faults``) runs them all in a copy of the repository and writes
the outcome into tests/README.md; with names, only those, and nothing is written. A fault replaces
one piece of text that stands in its file once.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "tests" / "README.md"
MARK = "<!-- faults -->"


class Fault(NamedTuple):
    """What is wrong in words, where, and the tests that should notice."""

    name: str
    file: str
    tests: str
    before: str
    after: str


# fmt: off
FAULTS = [
    Fault("the sign of a paired difference", "study/estimates.py", "study/test_estimates.py",
          'metric: values["ours"] - values["theirs"]', 'metric: values["theirs"] - values["ours"]'),
    Fault("assays resampled in place of clusters", "study/estimates.py", "study/test_estimates.py",
          'bootstrap_mean(means["value"].to_numpy(), means["unit"].to_numpy())',
          'bootstrap_mean(means["value"].to_numpy())'),
    Fault("seeds counted as assays", "study/estimates.py", "study/test_estimates.py",
          '.groupby("assay")\n    means', '.groupby(["assay", "seed"])\n    means'),
    Fault("an interval of 90 % called one of 95 %", "study/estimates.py", "study/test_estimates.py",
          "[0.025, 0.975], method=quantile", "[0.05, 0.95], method=quantile"),
    Fault("a verdict that forgets the ranks", "study/estimates.py", "study/test_estimates.py",
          'gain["high"] < claimed or difference["mean"] <= 0', 'gain["high"] < claimed'),
    Fault("query labels shown to the method", "study/evaluate.py", "study/test_evaluate.py",
          'labels=torch.full_like(task.query.labels, float("nan"))', "labels=task.query.labels"),
    Fault("predictions scored on the scaled axis", "study/evaluate.py", "study/test_evaluate.py",
          "predicted = scale.to_scores(_checked(labels, len(measured), where))",
          "predicted = _checked(labels, len(measured), where)"),
    Fault("held-out sites that stay in training", "study/evaluate.py", "study/test_evaluate.py",
          "any(change.position in chosen for change in one)",
          "rng.random() < 0.5 and any(change.position in chosen for change in one)"),
    Fault("relatives of the tested proteins in meta-training",
          "study/study.py", "study/test_study.py",
          "if of[name] not in taken]", "if name not in test]"),
    Fault("rates chosen on the assays that are tested", "study/case.py", "study/test_run.py",
          "list(self.case.split.validation)", "list(self.case.split.test)"),
    Fault("the worst outer rate kept", "study/case.py", "study/test_run.py",
          "sorted(tries, key=_lowest)", "sorted(tries, key=_lowest, reverse=True)"),
    Fault("kept results given to another question", "study/run.py", "study/test_run.py",
          '"study": recorded_parameters(chosen),', '"study": {},'),
    Fault("the highest error chosen", "learn/tuning.py", "learn/test_methods.py",
          '{"spearman": 1, "error": -1}', '{"spearman": 1, "error": 1}'),
    Fault("MAML that adapts away from the labels", "learn/inner.py", "learn/test_gradients.py",
          "value - rates[name] * slope", "value + rates[name] * slope"),
    Fault("a diverged adaptation that is used", "learn/methods.py", "learn/test_methods.py",
          "if self.predictor.loss(adapted, support) <= before:",
          "if self.predictor.loss(adapted, support) <= before or True:"),
    Fault("one-hot vectors of the wild type", "learn/baselines.py", "learn",
          "(one.mutant, 1.0)", "(one.mutant, 0.0)"),
    Fault("labels scaled with the query in sight", "tasks/tasks.py", "tasks",
          "LabelScale.fit(scores[support])",
          "LabelScale.fit(scores[np.concatenate([support, query])])"),
    Fault("labels of a far tail left where they are", "tasks/tasks.py", "tasks",
          "len(labels) / (len(labels) + _HALF_WAY)", "0.0"),
    Fault("a cluster kept back where nothing chooses", "study/study.py", "study/test_study.py",
          "len(free) - 1) if share else 0", "len(free) - 1)"),
    Fault("one left out with its own label in sight", "ranking/check.py", "ranking/test_ranking.py",
          "np.diag(labels) - np.diag(missed) / own", "np.diag(labels) - np.diag(missed)"),
    Fault("a learning curve that has seen what it is asked", "ranking/check.py",
          "ranking/test_ranking.py", "order[:held], order[held:]", "order[:held], order"),
    Fault("a variant that is picked in two rounds", "ranking/rounds.py", "ranking/test_rounds.py",
          "hopes[picked] = -np.inf", "pass"),
    Fault("rounds whose hits are the worst variants", "ranking/rounds.py",
          "ranking/test_rounds.py", "scores >= np.quantile(scores, 1 - GOOD)",
          "scores <= np.quantile(scores, GOOD)"),
    Fault("a report that calls intervals right which are too narrow", "ranking/report.py",
          "ranking/test_report.py", "(away.abs() <= wide * side.abs())",
          "(away.abs() <= 2 * wide * side.abs())"),
    Fault("a heat map with bad substitutions in the good colour", "ranking/report.py",
          "ranking/test_report.py", "gain = sign * (", "gain = ("),
    Fault("support and query that overlap by one", "tasks/tasks.py", "tasks study/test_evaluate.py",
          "query = order[pool:] if", "query = order[max(pool - 1, 0) :] if"),
    Fault("a ranking that counts from the wrong end", "tasks/losses.py", "tasks",
          "return (rest - predicted).sum() / max(len(labels), 1)",
          "return (rest + predicted).sum() / max(len(labels), 1)"),
    Fault("one encoding's site marked one token late", "tasks/encodings.py", "tasks",
          "sites[row, list(text.sites)] = True",
          "sites[row, [min(s + 1, length - 1) for s in text.sites]] = True"),
    Fault("rows written backwards that are read forwards",
          "reproduction/released.py", "reproduction/test_audit.py",
          'rows["undone"].where(backwards, rows["sequence"])',
          'rows["sequence"].where(backwards, rows["undone"])'),
    Fault("a second mutation that is always found",
          "reproduction/released.py", "reproduction/test_released.py",
          "or characters[place][0] != written.first:", "or False:"),
    Fault("the protocol's arms adapted on the rows they are asked",
          "reproduction/protocol_run.py", "reproduction/test_protocol.py",
          "timed(inner_update, loss, params, labelled, trial.inner)",
          "timed(inner_update, loss, params, asked, trial.inner)"),
    Fault("errors averaged over draws in place of ratios",
          "reproduction/protocol_estimates.py", "reproduction/test_protocol.py",
          "np.log(over_seeds @ errors)", "(over_seeds @ np.log(errors))"),
    Fault("a reported gain scored on the draw's own rows",
          "reproduction/chance.py", "reproduction/test_chance.py",
          "told(error / reference.mean())",
          "told(error / reference[query[: len(error)]].mean(axis=1))"),
    Fault("a re-split that is the same for every seed",
          "reproduction/chance.py", "reproduction/test_chance.py",
          "fifth(len(data[name]), seed)", "fifth(len(data[name]), 0)"),
    Fault("query rows drawn with replacement",
          "reproduction/query_draws.py", "reproduction/test_audit.py",
          '"replace": False', '"replace": True'),
    Fault("a checksum that is not compared", "records/store.py", "records/test_store.py",
          'meta["sha256"] == checksum(tensors, meta["state"])', 'meta["sha256"]'),
    Fault("a part that is kept given to another question",
          "records/store.py", "records/test_store.py",
          '.get("question") == key:', '.get("question"):'),
    Fault("the tested fold's proteins that choose", "data/splits.py", "data/test_proteins.py",
          "groups[i + 1 :] + groups[:i]", "groups[i:] + groups[:i]"),
    Fault("variants counted from the second residue", "data/variants.py", "data/test_variants.py",
          "for i, letter in enumerate(wild_type, start=1)",
          "for i, letter in enumerate(wild_type, start=2)"),
    Fault("unresolved residues that count as alike", "data/proteins.py", "data/test_proteins.py",
          " & (upper != _UNRESOLVED)", ""),
    Fault("padding that is attended to", "models/layers.py", "models",
          "(~mask).to(x.dtype)", "(~mask & mask).to(x.dtype)"),
    Fault("padding that is averaged", "models/predictor.py", "models",
          "    chosen = batch.mask\n", "    chosen = torch.ones_like(batch.mask)\n"),
    Fault("log-odds of the wild type over the variant",
          "models/zero_shot.py", "models/test_zero_shot.py",
          "(found - found.gather(1, own[:, None]))", "(found.gather(1, own[:, None]) - found)"),
    Fault("noise that is not on the scale of the weights", "models/swap.py", "models/test_swap.py",
          "w + share * w.std() * torch.randn", "w + share * torch.randn"),
    Fault("support and query swapped in the meta-gradient",
          "learn/gradients.py", "learn/test_gradients.py",
          "way(loss, params, support, query, loop)", "way(loss, params, query, support, loop)"),
    Fault("a gradient summed where it is averaged", "learn/gradients.py", "learn/test_family.py",
          "value.sum() / share", "value.sum()"),
    Fault("Reptile that walks away from what was adapted",
          "learn/algorithms.py", "learn/test_family.py",
          "start - adapted[name]", "adapted[name] - start"),
    Fault("a penalty with the wrong sign", "learn/closed_form.py", "learn/test_closed_form.py",
          "gram + shift, labels", "gram - shift, labels"),
    Fault("a race in which the query is descended on",
          "reproduction/speed.py", "reproduction/test_speed.py",
          "descent(predictor, start, task.support, rate, steps)",
          "descent(predictor, start, task.query, rate, steps)"),
    Fault("points hollow that differ from the reference", "app/figures.py", "app/test_figures.py",
          'holds = ~((own["low"]', 'holds = ((own["low"]'),
    Fault("a record of other parameters that answers a run",
          "records/record.py", "app/test_sweep.py",
          "if canonical(found[n] or None) != canonical(asked[n] or None)", "if found is None"),
    Fault("parameters of another type let through", "app/notebooks.py", "app/test_notebook_runs.py",
          "ConfigDict(strict=True)", "ConfigDict(strict=False)"),
    Fault("one network of several asked", "learn/start.py", "learn/test_start.py",
          "return members(self.params) if", "return members(self.params)[:1] if"),
    Fault("other weights under a start taken in silence", "learn/start.py", "learn/test_start.py",
          "            if strict:\n", "            if not strict:\n"),
    Fault("networks that disagree and are as sure as one",
          "learn/ranker.py", "learn/test_ranker.py",
          " + np.var(means, axis=0)", ""),
    Fault("a double mutant as the mean of its substitutions",
          "models/predictor.py", "models/test_trunk.py",
          ".hidden.sum(dim=-2)", ".hidden.mean(dim=-2)"),
    Fault("scales of sites from test proteins as well", "study/case.py", "study/test_run.py",
          "items = [vectors.assays[id] for id in train]", "items = [*vectors.assays.values()]"),
    Fault("labels conditioned on without the prior's mean",
          "learn/ranker.py", "learn/test_ranker.py",
          'missed = labels - params["kernel.slope"] * self.score(params, latent)',
          "missed = labels"),
]
# fmt: on


def moved(fault: Fault) -> str:
    """What has become of the text that a fault replaces, in words; empty if it stands once."""
    path = ROOT / "mutmeta_lib" / fault.file
    if not path.is_file():
        return f"{fault.name}: there is no {fault.file}"
    count = path.read_text(encoding="utf-8").count(fault.before)
    return "" if count == 1 else f"{fault.name}: its text stands {count} times in {fault.file}"


def seed(copy: Path, fault: Fault) -> str | None:
    """Whether a test noticed: the first that failed, or None."""
    path = copy / "mutmeta_lib" / fault.file
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(fault.before, fault.after), encoding="utf-8")
    tests = [f"tests/{name}" for name in fault.tests.split()]
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    environment = os.environ | threads | {"PYTHONPATH": str(copy)}
    try:
        done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)
    finally:
        path.write_text(text, encoding="utf-8")
    if done.returncode == 0:
        return None
    # A file that cannot be collected has noticed nothing.
    told = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    told = [line for line in told if "::" in line]
    if not told:
        raise SystemExit(f"{fault.name}: the tests did not run\n{done.stdout[-2000:]}")
    return told[0].split(" ")[1].split("::")[-1].partition("[")[0]


def main() -> None:
    """Run the faults that were named, or all of them."""
    asked = [f for f in FAULTS if not sys.argv[1:] or any(w in f.name for w in sys.argv[1:])]
    if lost := "\n".join(filter(None, map(moved, asked))):
        raise SystemExit(lost)
    files = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    workers = 2
    with tempfile.TemporaryDirectory() as folder:
        copies = [Path(folder, str(place)) for place in range(workers)]
        for copy in copies:
            for name in files.stdout.splitlines():
                if (ROOT / name).is_file():
                    (copy / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(ROOT / name, copy / name)

        def lane(place: int) -> list[tuple[Fault, str | None]]:
            made = []
            for fault in asked[place::workers]:
                made.append((fault, seed(copies[place], fault)))
                print(f"{'caught' if made[-1][1] else 'MISSED'}: {fault.name}", flush=True)
            return made

        with ThreadPoolExecutor(workers) as pool:
            found = dict(one for lane in pool.map(lane, range(workers)) for one in lane)
    caught = sum(noticed is not None for noticed in found.values())
    print(f"{caught} of {len(asked)} faults were caught")
    if len(asked) < len(FAULTS):
        return
    rows = []
    for fault in FAULTS:
        noticed = f"`{found[fault]}`" if found[fault] else "**no test**"
        rows.append(f"| {fault.name} | `{fault.file}` | {noticed} |")
    head = ["", f"{caught} of {len(FAULTS)} are caught.", "", "| Fault | File | Noticed by |"]
    text = TABLE.read_text(encoding="utf-8").partition(MARK)[0]
    table = "\n".join([*head, "|---|---|---|", *rows])
    TABLE.write_text(f"{text}{MARK}\n{table}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
