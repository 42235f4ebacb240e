"""The command ``mutmeta train``: a meta-trained start."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from mutmeta_lib.app import console
from mutmeta_lib.app.console import DataDir, Device, Encoder, Encoding, check_known, option
from mutmeta_lib.errors import DataError

TEXTS = {"steps": 200, "tasks_per_step": 4, "support": 10, "query": 16}
TEXTS |= {"inner_steps": 5, "inner_lr": 0.01, "meta_lr": 1e-3, "members": 1}
"""What is used where nothing is asked for; on sites it is what the book's benchmark has."""


def _usual(kind: type, name: str, words: str, **limits: Any) -> Any:
    return option(
        kind | None, f"{words} Default {TEXTS[name]}, on sites the benchmark's.", **limits
    )


def train_command(
    output: Annotated[Path, typer.Argument(help="Write the start here (safetensors).")],
    data_dir: DataDir = "demo",
    selection: option(str, "Only the assays of this list, as benchmark.") = "",
    encoder: Encoder = "small",
    encoding: Encoding = "separator",
    pooling: option(str, "How hidden states become one vector.") = "sites",
    algorithm: option(str, "A member of the MAML family, or ranker (on sites).") = "maml",
    steps: _usual(int, "steps", "Outer steps.", min=1) = None,
    tasks_per_step: _usual(int, "tasks_per_step", "Tasks per outer step.", min=1) = None,
    support: _usual(int, "support", "Support size.", min=1) = None,
    query: _usual(int, "query", "Query size.", min=1) = None,
    inner_steps: _usual(int, "inner_steps", "Inner steps.", min=0) = None,
    inner_lr: _usual(float, "inner_lr", "Inner rate.") = None,
    first_order: option(bool, console.ORDER, "--first-order/--second-order") = False,
    meta_lr: _usual(float, "meta_lr", "Adam rate of the outer loop.") = None,
    members: _usual(int, "members", "Networks of a ranker.", min=1) = None,
    backend: option(str, "How the meta-gradient is computed.") = "auto",
    precision: option(str, "float32, or bfloat16 for faster and coarser products.") = "float32",
    seed: option(int, "Of the head and the draws.") = 0,
    folds: option(int, "Groups of proteins.", min=3) = 3,
    fold: option(int | None, "Leave out this fold's test group; else use all.", min=0) = None,
    device: Device = "auto",
    checkpoint: option(Path | None, "Save here on the way; a killed run goes on from it.") = None,
    checkpoint_every: option(int, "Steps between two saves.", min=1) = 20,
) -> None:
    """Meta-train a start.

    On sites it sees normal scores, and schedule, weight decay and dropout are the benchmark's.
    """
    from mutmeta_lib.data.splits import Split, protein_folds
    from mutmeta_lib.learn import InnerLoop
    from mutmeta_lib.learn.algorithms import ALGORITHMS
    from mutmeta_lib.learn.methods import STARTS, joined
    from mutmeta_lib.learn.start import save_start
    from mutmeta_lib.learn.train import MetaTraining, meta_train
    from mutmeta_lib.models.encoder import load_encoder
    from mutmeta_lib.models.sites import READS
    from mutmeta_lib.records.files import check_writable
    from mutmeta_lib.records.progress import shown_progress
    from mutmeta_lib.study import case
    from mutmeta_lib.study.benchmark import SHIPPED
    from mutmeta_lib.study.study import Read, Study, read_assays

    console.check_device(device)
    for path in filter(None, (output, checkpoint)):
        check_writable(path)
    if fold is not None and fold >= folds:
        raise DataError(f"--fold {fold} is not one of {folds}", f"use 0 to {folds - 1}")
    asked = {"steps": steps, "tasks_per_step": tasks_per_step, "support": support, "query": query}
    asked |= {"inner_steps": inner_steps, "inner_lr": inner_lr, "meta_lr": meta_lr}
    usual, more = TEXTS, {}
    if encoding in READS:
        rates = dict(zip(("inner_lr", "meta_lr"), SHIPPED.outer_rates[0], strict=True))
        usual = vars(SHIPPED) | rates | {"steps": SHIPPED.meta_steps}
        more = {name: usual[name] for name in ("schedule", "weight_decay", "dropout")}
    chosen = {name: usual[name] if one is None else one for name, one in asked.items()}
    settings = MetaTraining(
        algorithm,
        inner=InnerLoop(chosen.pop("inner_lr"), chosen.pop("inner_steps"), first_order),
        validate_every=max(5, chosen["steps"] // 10),
        backend=backend,
        precision=precision,
        **chosen,
        **more,
    )
    several = STARTS[algorithm].members
    if not several and members not in (None, 1):
        raise DataError(f"a start by {algorithm} is one network", "leave --members out")
    count = (members or usual["members"]) if several else 1
    assays, _ = read_assays(Study(data_dir=data_dir, selection=selection))
    everything = Split(tuple(assay.id for assay in assays), (), ())
    split = everything if fold is None else protein_folds(assays, folds)[fold]
    below = None
    if encoding in READS:
        below = load_encoder(encoder) if READS[encoding] else None
        predictor, sides = case.sites_fold(split, assays, Read(encoder, encoding), seed, device)
    else:
        predictor = case.make_predictor(encoder, pooling, seed=seed, device=device)
        sides = case.encode_fold(split, assays, encoding, predictor)
    member = ALGORITHMS[algorithm](predictor)
    known = member.backends(member.training_loop(member.loop(settings.inner)))
    check_known([backend], known, "backend")
    needed = settings.support + settings.query
    used = [side for side in sides.train if len(side) >= needed]
    small = [f"{side.assay.id} ({len(side)})" for side in sides.train if side not in used]
    if small:
        few = f"left out, with fewer variants than support and query, {needed}: "
        console.say_warning(few + ", ".join(small))
    runs = []
    with shown_progress() as report:
        for number in range(count):
            label = f"{algorithm} {number + 1} of {count}" if count > 1 else algorithm
            kept = checkpoint
            if checkpoint and number:
                kept = checkpoint.with_stem(f"{checkpoint.stem}_{number}")
            run = meta_train(
                predictor,
                case.fresh(predictor, seed, number, device),
                used,
                settings,
                seed=case.member_seed(seed, number),
                validation=sides.validation,
                checkpoint=kept,
                checkpoint_every=checkpoint_every,
                progress=lambda step, total, loss, label=label: report(label, step, total),
            )
            runs.append(run)
    trained = runs[0]
    if several:
        trained = replace(trained, params=joined([run.params for run in runs]))
    ids = {side.assay.id for side in used}
    data = {assay.id: assay.sha256 for assay in assays if assay.id in ids}
    save_start(output, trained, predictor, encoding, data, below)
    networks = f", {count} networks" if several else ""
    print(
        f"{algorithm}: {settings.steps} steps on {len(used)} assays{networks}, start of step "
        f"{trained.best_step} in {console.seen_from_here(output)}"
    )
