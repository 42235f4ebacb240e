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
    before: str
    after: str
    tests: str


FAULTS = [
    Fault(
        "the sign of a paired difference",
        "study/estimates.py",
        'metric: values["ours"] - values["theirs"]',
        'metric: values["theirs"] - values["ours"]',
        "study/test_estimates.py",
    ),
    Fault(
        "assays resampled in place of clusters",
        "study/estimates.py",
        'bootstrap_mean(means["value"].to_numpy(), means["unit"].to_numpy())',
        'bootstrap_mean(means["value"].to_numpy())',
        "study/test_estimates.py",
    ),
    Fault(
        "seeds counted as assays",
        "study/estimates.py",
        '.groupby("assay")\n    means',
        '.groupby(["assay", "seed"])\n    means',
        "study/test_estimates.py",
    ),
    Fault(
        "an interval of 90 % called one of 95 %",
        "study/estimates.py",
        "[0.025, 0.975], method=quantile",
        "[0.05, 0.95], method=quantile",
        "study/test_estimates.py",
    ),
    Fault(
        "a verdict that forgets the ranks",
        "study/estimates.py",
        'gain["high"] < claimed or difference["mean"] <= 0',
        'gain["high"] < claimed',
        "study/test_estimates.py",
    ),
    Fault(
        "query labels shown to the method",
        "study/evaluate.py",
        'labels=torch.full_like(task.query.labels, float("nan"))',
        "labels=task.query.labels",
        "study/test_evaluate.py",
    ),
    Fault(
        "predictions scored on the scaled axis",
        "study/evaluate.py",
        "predicted = scale.to_scores(_checked(labels, len(measured), where))",
        "predicted = _checked(labels, len(measured), where)",
        "study/test_evaluate.py",
    ),
    Fault(
        "held-out sites that stay in training",
        "study/evaluate.py",
        "any(change.position in chosen for change in one)",
        "rng.random() < 0.5 and any(change.position in chosen for change in one)",
        "study/test_evaluate.py",
    ),
    Fault(
        "relatives of the tested proteins in meta-training",
        "study/study.py",
        "if of[name] not in taken]",
        "if name not in test]",
        "study/test_study.py",
    ),
    Fault(
        "rates chosen on the assays that are tested",
        "study/case.py",
        "list(self.case.split.validation)",
        "list(self.case.split.test)",
        "study/test_run.py",
    ),
    Fault(
        "the worst outer rate kept",
        "study/case.py",
        "for pair in rates), key=_lowest)",
        "for pair in rates), key=_lowest, reverse=True)",
        "study/test_run.py",
    ),
    Fault(
        "kept results given to another question",
        "study/run.py",
        '"study": recorded_parameters(chosen),',
        '"study": {},',
        "study/test_run.py",
    ),
    Fault(
        "the highest error chosen",
        "learn/tuning.py",
        '{"spearman": 1, "error": -1}',
        '{"spearman": 1, "error": 1}',
        "learn/test_methods.py",
    ),
    Fault(
        "MAML that adapts away from the labels",
        "learn/inner.py",
        "value - rates[name] * slope",
        "value + rates[name] * slope",
        "learn/test_gradients.py",
    ),
    Fault(
        "a diverged adaptation that is used",
        "learn/methods.py",
        "if self.predictor.loss(adapted, support) <= before:",
        "if self.predictor.loss(adapted, support) <= before or True:",
        "learn/test_methods.py",
    ),
    Fault(
        "one-hot vectors of the wild type",
        "learn/baselines.py",
        "(one.mutant, 1.0)",
        "(one.mutant, 0.0)",
        "learn",
    ),
    Fault(
        "labels scaled with the query in sight",
        "tasks/tasks.py",
        "LabelScale.fit(scores[support])",
        "LabelScale.fit(scores[np.concatenate([support, query])])",
        "tasks",
    ),
    Fault(
        "support and query that overlap by one",
        "tasks/tasks.py",
        "query = order[pool:] if",
        "query = order[max(pool - 1, 0) :] if",
        "tasks study/test_evaluate.py",
    ),
    Fault(
        "a ranking that counts from the wrong end",
        "tasks/losses.py",
        "return (rest - predicted).sum() / max(len(labels), 1)",
        "return (rest + predicted).sum() / max(len(labels), 1)",
        "tasks",
    ),
    Fault(
        "one encoding's site marked one token late",
        "tasks/encodings.py",
        "sites[row, list(text.sites)] = True",
        "sites[row, [min(s + 1, length - 1) for s in text.sites]] = True",
        "tasks",
    ),
    Fault(
        "rows written backwards that are read forwards",
        "reproduction/released.py",
        'rows["undone"].where(backwards, rows["sequence"])',
        'rows["sequence"].where(backwards, rows["undone"])',
        "reproduction/test_audit.py",
    ),
    Fault(
        "a second mutation that is always found",
        "reproduction/released.py",
        "or characters[place][0] != written.first:",
        "or False:",
        "reproduction/test_released.py",
    ),
    Fault(
        "the protocol's arms adapted on the rows they are asked",
        "reproduction/protocol_run.py",
        "timed(inner_update, loss, params, labelled, trial.inner)",
        "timed(inner_update, loss, params, asked, trial.inner)",
        "reproduction/test_protocol.py",
    ),
    Fault(
        "errors averaged over draws in place of ratios",
        "reproduction/protocol_estimates.py",
        "np.log(over_seeds @ errors)",
        "(over_seeds @ np.log(errors))",
        "reproduction/test_protocol.py",
    ),
    Fault(
        "a reported gain scored on the draw's own rows",
        "reproduction/chance.py",
        "told(error / reference.mean())",
        "told(error / reference[query[: len(error)]].mean(axis=1))",
        "reproduction/test_chance.py",
    ),
    Fault(
        "a re-split that is the same for every seed",
        "reproduction/chance.py",
        "fifth(len(data[name]), seed)",
        "fifth(len(data[name]), 0)",
        "reproduction/test_chance.py",
    ),
    Fault(
        "query rows drawn with replacement",
        "reproduction/query_draws.py",
        '"replace": False',
        '"replace": True',
        "reproduction/test_audit.py",
    ),
    Fault(
        "a checksum that is not compared",
        "records/store.py",
        'meta["sha256"] == checksum(tensors, meta["state"])',
        'meta["sha256"]',
        "records/test_store.py",
    ),
    Fault(
        "a part that is kept given to another question",
        "records/store.py",
        '.get("question") == key:',
        '.get("question"):',
        "records/test_store.py",
    ),
    Fault(
        "the tested fold's proteins that choose",
        "data/splits.py",
        "groups[i + 1 :] + groups[:i]",
        "groups[i:] + groups[:i]",
        "data/test_proteins.py",
    ),
    Fault(
        "variants counted from the second residue",
        "data/variants.py",
        "for i, letter in enumerate(wild_type, start=1)",
        "for i, letter in enumerate(wild_type, start=2)",
        "data/test_variants.py",
    ),
    Fault(
        "unresolved residues that count as alike",
        "data/proteins.py",
        " & (upper != _UNRESOLVED)",
        "",
        "data/test_proteins.py",
    ),
    Fault(
        "padding that is attended to",
        "models/layers.py",
        "(~mask).to(x.dtype)",
        "(~mask & mask).to(x.dtype)",
        "models",
    ),
    Fault(
        "padding that is averaged",
        "models/predictor.py",
        "    chosen = batch.mask\n",
        "    chosen = torch.ones_like(batch.mask)\n",
        "models",
    ),
    Fault(
        "log-odds of the wild type over the variant",
        "models/zero_shot.py",
        "(found - found.gather(1, own[:, None]))",
        "(found.gather(1, own[:, None]) - found)",
        "models/test_zero_shot.py",
    ),
    Fault(
        "noise that is not on the scale of the weights",
        "models/swap.py",
        "w + share * w.std() * torch.randn",
        "w + share * torch.randn",
        "models/test_swap.py",
    ),
    Fault(
        "support and query swapped in the meta-gradient",
        "learn/gradients.py",
        "way(loss, params, support, query, loop)",
        "way(loss, params, query, support, loop)",
        "learn/test_gradients.py",
    ),
    Fault(
        "a gradient summed where it is averaged",
        "learn/gradients.py",
        "value.sum() / share",
        "value.sum()",
        "learn/test_family.py",
    ),
    Fault(
        "Reptile that walks away from what was adapted",
        "learn/algorithms.py",
        "start - adapted[name]",
        "adapted[name] - start",
        "learn/test_family.py",
    ),
    Fault(
        "a penalty with the wrong sign",
        "learn/closed_form.py",
        "gram + shift, labels",
        "gram - shift, labels",
        "learn/test_closed_form.py",
    ),
    Fault(
        "a race in which the query is descended on",
        "reproduction/speed.py",
        "descent(predictor, start, task.support, rate, steps)",
        "descent(predictor, start, task.query, rate, steps)",
        "reproduction/test_speed.py",
    ),
    Fault(
        "points hollow that differ from the reference",
        "app/figures.py",
        'holds = ~((own["low"]',
        'holds = ((own["low"]',
        "app/test_figures.py",
    ),
    Fault(
        "a record of other parameters that answers a run",
        "app/sweep.py",
        "if canonical(found or None) != canonical(asked or None):",
        "if canonical(found) is None:",
        "app/test_sweep.py",
    ),
    Fault(
        "parameters of another type let through",
        "app/notebooks.py",
        "ConfigDict(strict=True)",
        "ConfigDict(strict=False)",
        "app/test_notebook_runs.py",
    ),
    Fault(
        "one network of several asked",
        "learn/start.py",
        "return members(self.params) if",
        "return members(self.params)[:1] if",
        "learn/test_start.py",
    ),
    Fault(
        "other weights under a start taken in silence",
        "learn/start.py",
        "            if strict:\n",
        "            if not strict:\n",
        "learn/test_start.py",
    ),
    Fault(
        "networks that disagree and are as sure as one",
        "learn/ranker.py",
        " + np.var(means, axis=0)",
        "",
        "learn/test_ranker.py",
    ),
    Fault(
        "a double mutant as the mean of its substitutions",
        "models/predictor.py",
        ".hidden.sum(dim=-2)",
        ".hidden.mean(dim=-2)",
        "models/test_trunk.py",
    ),
    Fault(
        "scales of sites from test proteins as well",
        "study/case.py",
        "items = [vectors.assays[id] for id in train]",
        "items = [*vectors.assays.values()]",
        "study/test_run.py",
    ),
    Fault(
        "labels conditioned on without the prior's mean",
        "learn/ranker.py",
        'missed = labels - params["kernel.slope"] * self.score(params, latent)',
        "missed = labels",
        "learn/test_ranker.py",
    ),
]


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
