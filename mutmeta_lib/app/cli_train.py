"""The command ``mutmeta train``: a meta-trained start."""

from pathlib import Path
from typing import Annotated

import typer

from mutmeta_lib.app import console
from mutmeta_lib.app.console import DataDir, Device, Encoder, Encoding, check_known, option
from mutmeta_lib.errors import DataError


def train_command(
    output: Annotated[Path, typer.Argument(help="Write the start here (safetensors).")],
    data_dir: DataDir = "demo",
    encoder: Encoder = "tiny",
    encoding: Encoding = "separator",
    pooling: option(str, "How hidden states become one vector.") = "sites",
    algorithm: option(str, "A member of the MAML family.") = "maml",
    steps: option(int, "Outer steps.", min=1) = 200,
    tasks_per_step: option(int, "Tasks per outer step.", min=1) = 4,
    support: option(int, "Support size.", min=1) = 10,
    query: option(int, "Query size.", min=1) = 16,
    inner_steps: option(int, "Inner steps.", min=0) = 5,
    inner_lr: option(float, "Inner rate.") = 0.01,
    first_order: option(bool, console.ORDER, "--first-order/--second-order") = False,
    meta_lr: option(float, "Adam rate of the outer loop.") = 1e-3,
    backend: option(str, "How the meta-gradient is computed.") = "auto",
    precision: option(str, "float32, or bfloat16 for faster and coarser products.") = "float32",
    seed: option(int, "Of the head and the draws.") = 0,
    folds: option(int, "Groups of proteins.", min=3) = 3,
    fold: option(int | None, "Leave out this fold's test group; else use all.", min=0) = None,
    device: Device = "auto",
    checkpoint: option(Path | None, "Save here on the way; a killed run goes on from it.") = None,
    checkpoint_every: option(int, "Steps between two saves.", min=1) = 20,
) -> None:
    """Meta-train a start."""
    from mutmeta_lib.data.splits import Split, protein_folds
    from mutmeta_lib.learn import InnerLoop
    from mutmeta_lib.learn.algorithms import ALGORITHMS
    from mutmeta_lib.learn.start import save_start
    from mutmeta_lib.learn.train import MetaTraining, meta_train
    from mutmeta_lib.records.files import check_writable
    from mutmeta_lib.records.progress import shown_progress
    from mutmeta_lib.study.case import encode_fold, initial_params, make_predictor
    from mutmeta_lib.study.study import load_assays

    console.check_device(device)
    for path in filter(None, (output, checkpoint)):
        check_writable(path)
    if fold is not None and fold >= folds:
        raise DataError(f"--fold {fold} is not one of {folds}", f"use 0 to {folds - 1}")
    assays = load_assays(data_dir)
    everything = Split(tuple(assay.id for assay in assays), (), ())
    split = everything if fold is None else protein_folds(assays, folds)[fold]
    settings = MetaTraining(
        algorithm,
        steps,
        tasks_per_step,
        support,
        query,
        InnerLoop(inner_lr, inner_steps, first_order),
        meta_lr,
        validate_every=max(5, steps // 10),
        backend=backend,
        precision=precision,
    )
    predictor = make_predictor(encoder, pooling, seed=seed, device=device)
    member = ALGORITHMS[algorithm](predictor)
    known = member.backends(member.training_loop(member.loop(settings.inner)))
    check_known([backend], known, "backend")
    sides = encode_fold(split, assays, encoding, predictor)
    used = [side for side in sides.train if len(side) >= support + query]
    small = [f"{side.assay.id} ({len(side)})" for side in sides.train if side not in used]
    if small:
        few = f"left out, with fewer variants than support and query, {support + query}: "
        console.say_warning(few + ", ".join(small))
    with shown_progress() as report:
        run = meta_train(
            predictor,
            initial_params(predictor, seed, device),
            used,
            settings,
            seed=seed,
            validation=sides.validation,
            checkpoint=checkpoint,
            checkpoint_every=checkpoint_every,
            progress=lambda step, total, loss: report(algorithm, step, total),
        )
    data = {side.assay.id: side.assay.sha256 for side in used}
    save_start(output, run, predictor, encoding, data)
    print(
        f"{algorithm}: {steps} steps on {len(used)} assays, start of step {run.best_step} in "
        f"{console.seen_from_here(output)}"
    )
