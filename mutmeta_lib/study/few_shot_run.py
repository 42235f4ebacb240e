"""One run of the few-shot comparison: one fold and seed, from starts to test results.

Everything that takes long is kept as it ends, if a folder is given: meta-training in checkpoints,
the choice of each method's rate, the results on each test assay, and the run as a whole.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from mutmeta_lib.data.assays import Assay
from mutmeta_lib.data.splits import Split
from mutmeta_lib.learn.algorithms import ALGORITHMS
from mutmeta_lib.learn.methods import METHODS, Ingredients, build_methods, divergences
from mutmeta_lib.learn.training import MetaTraining, Trained, meta_train, pick_device
from mutmeta_lib.learn.tuning import Rate, choose_rate
from mutmeta_lib.models.predictor import Params, Predictor
from mutmeta_lib.records.pieces import Pieces
from mutmeta_lib.records.progress import Report, silent
from mutmeta_lib.study.evaluate import check_assays, few_shot
from mutmeta_lib.study.setting import (
    Fold,
    encode_fold,
    finished_parts,
    initial_params,
    make_predictor,
)

LEARNED = tuple(name for name in METHODS if name == "finetune" or name in ALGORITHMS)

# Grids of equal size per method, chosen from on meta-validation tasks. SGD is MAML's inner loop;
# fine-tuning may use either optimiser. Methods that learn their own rates, or need none, have none.
RATES: dict[str, tuple[Rate, ...]] = {
    "maml": (("sgd", 0.01), ("sgd", 0.03), ("sgd", 0.1), ("adam", 1e-3)),
    "multitask": (("sgd", 0.03), ("sgd", 0.1), ("adam", 3e-4), ("adam", 1e-3)),
    "finetune": (("sgd", 0.03), ("sgd", 0.1), ("adam", 3e-4), ("adam", 1e-3)),
    "anil": (("sgd", 0.01), ("sgd", 0.03), ("sgd", 0.1), ("adam", 1e-3)),
    "boil": (("sgd", 0.01), ("sgd", 0.03), ("sgd", 0.1), ("adam", 1e-3)),
    "reptile": (("sgd", 0.01), ("sgd", 0.03), ("sgd", 0.1), ("adam", 1e-3)),
}


@dataclass(frozen=True, eq=False)
class Comparison:
    """What all runs of one comparison share; ``parameters`` are those of the record."""

    assays: Sequence[Assay]
    splits: Sequence[Split]
    encoder: str
    encoder_sha256: str
    encoding: str
    pooling: str
    methods: Sequence[str]
    shots: Sequence[int]
    settings: MetaTraining
    adapt_steps: int
    max_query: int | None
    device: str
    cache_dir: str | None
    checkpoint_dir: str | None
    log_dir: str | None
    parameters: dict

    def pieces(self, fold: int, seed: int) -> Pieces:
        """Where the finished parts of a run are kept.

        A run does not depend on how many others there are, so more seeds or folds can be added.
        """
        others = ("seeds", "folds")
        folder = _folder(self.checkpoint_dir, fold, seed)
        return finished_parts(
            folder / "finished" if folder else None,
            {k: v for k, v in self.parameters.items() if k not in others},
            {assay.id: assay.sha256 for assay in self.assays},
            self.encoder_sha256,
            fold=fold,
            seed=seed,
        )


def compare_once(setting: Comparison, fold: int, seed: int, *, report: Report = silent) -> dict:
    """Train, tune and test on one fold with one seed.

    Returns:
        Plain JSON values: ``results``, ``choices`` and ``history`` as rows, ``seconds`` by phase,
        and ``diverged``, the number of test adaptations that fell back to their start.

    """
    return setting.pieces(fold, seed).get("run", lambda: _compare(setting, fold, seed, report))


def _compare(setting: Comparison, fold: int, seed: int, report: Report) -> dict:
    pieces, where = setting.pieces(fold, seed), {"fold": fold, "seed": seed}
    label = f"fold {fold + 1}, seed {seed}"
    predictor = make_predictor(setting.encoder, setting.pooling, seed=seed, device=setting.device)
    sides = encode_fold(setting.splits[fold], setting.assays, setting.encoding, predictor)
    check_assays(sides.test, max(setting.shots))
    starts, runs = train_starts(
        predictor,
        sides,
        setting.settings,
        setting.methods,
        seed,
        setting.device,
        _folder(setting.checkpoint_dir, fold, seed),
        _folder(setting.log_dir, fold, seed),
        lambda name, done, total: report(f"{label}: {name}", done, total),
    )
    tuned = _tune_all(setting, predictor, sides, starts, seed, pieces, label, report)
    rates = {name: tuple(kept["rate"]) for name, kept in tuned.items()}

    @cache  # embedding the assays takes long, and is not needed if all results were kept
    def built():
        where_to = str(pick_device(setting.device))
        given = Ingredients(
            predictor, starts, sides.test, rates, setting.adapt_steps, where_to, setting.cache_dir
        )
        return build_methods(setting.methods, given)

    def test(place: int) -> dict:
        def tell(done: int, total: int) -> None:
            report(f"{label}: test", place * total + done, len(sides.test) * total)

        with divergences() as diverged:
            found = few_shot(
                built(),
                [sides.test[place]],
                shots=setting.shots,
                seeds=[seed],
                max_query=setting.max_query,
                progress=tell,
            )
        return {"rows": found.to_dict("records"), "diverged": len(diverged)}

    tested = [
        pieces.get(f"test {assay.assay.id}", lambda place=place: test(place))
        for place, assay in enumerate(sides.test)
    ]
    return {
        "results": [{**row, "fold": fold} for part in tested for row in part["rows"]],
        "choices": [
            {"method": name, **row, **where} for name, kept in tuned.items() for row in kept["rows"]
        ],
        "history": [
            {"method": name, **row, **where} for name, run in runs.items() for row in run.history
        ],
        "seconds": {f"meta_training_{name}": run.seconds for name, run in runs.items()}
        | {"tuning": sum(kept["seconds"] for kept in tuned.values())},
        "diverged": sum(part["diverged"] for part in tested),
    }


def _tune_all(
    setting: Comparison,
    predictor: Predictor,
    sides: Fold,
    starts: dict[str, Params],
    seed: int,
    pieces: Pieces,
    label: str,
    report: Report,
) -> dict[str, dict]:
    """The chosen rate, the grid's scores and the seconds, by method."""

    def work(name: str) -> dict:
        began = time.perf_counter()
        rate, rows = tune(
            predictor,
            sides,
            name,
            starts[name],
            setting.adapt_steps,
            setting.shots,
            seed,
            lambda done, total: report(f"{label}: rates of {name}", done, total),
        )
        return {"rate": rate, "rows": rows, "seconds": time.perf_counter() - began}

    names = [name for name in starts if name in RATES]
    return {name: pieces.get(f"rates {name}", lambda name=name: work(name)) for name in names}


def _folder(parent: str | None, fold: int, seed: int) -> Path | None:
    return Path(parent) / f"fold{fold}-seed{seed}" if parent else None


def train_starts(
    predictor: Predictor,
    fold: Fold,
    settings: MetaTraining,
    methods: Sequence[str],
    seed: int,
    device: str,
    checkpoints: Path | None = None,
    logs: Path | None = None,
    report: Report = silent,
) -> tuple[dict[str, Params], dict[str, Trained]]:
    """The starts of the gradient methods: meta-trained, jointly trained, and untouched."""
    start = initial_params(predictor, seed, device)
    starts, runs = {}, {}
    for name in LEARNED:
        if name not in methods:
            continue
        if name == "finetune":
            starts[name] = start
            continue
        runs[name] = meta_train(
            predictor,
            start,
            fold.train,
            replace(settings, algorithm=name),
            seed=seed,
            validation=fold.validation,
            checkpoint=checkpoints / f"{name}.safetensors" if checkpoints else None,
            log_dir=logs / name if logs else None,
            progress=lambda step, steps, loss, name=name: report(name, step, steps),
        )
        starts[name] = runs[name].params
    return starts, runs


def tune(
    predictor: Predictor,
    fold: Fold,
    name: str,
    start: Params,
    steps: int,
    shots: Sequence[int],
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Rate, list[dict]]:
    """Choose a gradient method's optimiser and rate on the fold's validation proteins."""
    return choose_rate(
        lambda rate: METHODS[name](Ingredients(predictor, {name: start}, [], {name: rate}, steps)),
        RATES[name],
        fold.validation,
        shots=[k for k in shots if k > 1] or [max(shots)],
        seed=seed,
        max_query=64,
        max_assays=6,
        progress=progress,
    )
