"""The command ``mutmeta train``: a meta-trained start, by one process or by many."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from mutmeta_lib import __version__
from mutmeta_lib.app.console import (
    check_device,
    check_known,
    out,
    say_error,
    say_warning,
    seen_from_here,
)
from mutmeta_lib.errors import DataError


def train_command(
    output: Annotated[
        Path, typer.Argument(help="Write the start here (safetensors, with what it comes from).")
    ],
    data_dir: Annotated[
        str, typer.Option(help="A folder in the layout of the data card, or 'demo'.")
    ] = "demo",
    encoder: Annotated[
        str, typer.Option(help="'tiny', a local directory or a Hugging Face name.")
    ] = "tiny",
    encoding: Annotated[str, typer.Option(help="How variants are written.")] = "separator",
    pooling: Annotated[str, typer.Option(help="How hidden states become one vector.")] = "sites",
    algorithm: Annotated[str, typer.Option(help="A member of the MAML family.")] = "maml",
    steps: Annotated[int, typer.Option(min=1, help="Outer steps.")] = 200,
    tasks_per_step: Annotated[
        int, typer.Option(min=1, help="Tasks per outer step, over all processes.")
    ] = 4,
    support: Annotated[int, typer.Option(min=1, help="Support size.")] = 10,
    query: Annotated[int, typer.Option(min=1, help="Query size.")] = 16,
    inner_steps: Annotated[int, typer.Option(min=0, help="Inner steps.")] = 5,
    inner_lr: Annotated[float, typer.Option(help="Inner rate.")] = 0.01,
    first_order: Annotated[
        bool, typer.Option("--first-order/--second-order", help="Order of the meta-gradient.")
    ] = False,
    meta_lr: Annotated[float, typer.Option(help="Adam rate of the outer loop.")] = 1e-3,
    backend: Annotated[str, typer.Option(help="How the meta-gradient is computed.")] = "auto",
    precision: Annotated[
        str, typer.Option(help="'float32', or 'bfloat16' for faster and coarser products.")
    ] = "float32",
    on_nonfinite: Annotated[
        str, typer.Option(help="'stop' or 'skip' a task whose loss or gradient is not finite.")
    ] = "stop",
    seed: Annotated[int, typer.Option(help="Of the head and the draws.")] = 0,
    folds: Annotated[int, typer.Option(min=3, help="Groups of proteins.")] = 3,
    fold: Annotated[
        int | None,
        typer.Option(min=0, help="Leave this fold's test group out, validate; else use all."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    checkpoint: Annotated[
        Path | None, typer.Option(help="Save here on the way; a killed run goes on from it.")
    ] = None,
    checkpoint_every: Annotated[int, typer.Option(min=1, help="Steps between two saves.")] = 20,
    log_dir: Annotated[Path | None, typer.Option(help="Folder of TensorBoard's curves.")] = None,
    timeout: Annotated[
        float, typer.Option(min=1, help="Seconds to wait for the other processes of the run.")
    ] = 600,
) -> None:
    """Meta-train a start; under 'accelerate launch', tasks are shared among the processes."""
    from mutmeta_lib.data.splits import Split, protein_folds
    from mutmeta_lib.learn import InnerLoop
    from mutmeta_lib.learn.algorithms import ALGORITHMS
    from mutmeta_lib.learn.distributed import launched
    from mutmeta_lib.learn.train import ON_NONFINITE, PRECISIONS, MetaTraining, meta_train
    from mutmeta_lib.records.files import check_writable
    from mutmeta_lib.records.progress import shown_progress
    from mutmeta_lib.records.store import save
    from mutmeta_lib.study.run import encode_fold, initial_params, make_predictor
    from mutmeta_lib.study.study import load_assays
    from mutmeta_lib.tasks.encodings import ENCODINGS

    check_known([algorithm], list(ALGORITHMS), "algorithm")
    check_known([encoding], list(ENCODINGS), "encoding")
    check_known([precision], list(PRECISIONS), "precision")
    check_known([on_nonfinite], list(ON_NONFINITE), "way with tasks that are not finite")
    check_device(device)
    for path in (output, checkpoint, log_dir and log_dir / "events"):
        if path is not None:
            check_writable(path)
    if fold is not None and fold >= folds:
        raise DataError(f"--fold {fold} is not one of {folds}", f"use 0 to {folds - 1}")
    assays = load_assays(data_dir)
    everything = Split(tuple(assay.id for assay in assays), (), ())
    split = everything if fold is None else protein_folds(assays, folds)[fold]
    settings = MetaTraining(
        algorithm=algorithm,
        steps=steps,
        tasks_per_step=tasks_per_step,
        support=support,
        query=query,
        inner=InnerLoop(inner_lr, inner_steps, first_order),
        meta_lr=meta_lr,
        validate_every=max(5, steps // 10),
        backend=backend,
        on_nonfinite=on_nonfinite,
        precision=precision,
    )
    with launched(device, timeout=timeout) as ranks:
        where = device if ranks.size == 1 else str(ranks.device)
        try:
            predictor = make_predictor(encoder, pooling, seed=seed, device=where)
            member = ALGORITHMS[algorithm](predictor)
            known = member.backends(member.training_loop(member.loop(settings.inner)))
            check_known([backend], ["auto", *known], "backend")
            sides = encode_fold(split, assays, encoding, predictor)
            used = [side for side in sides.train if len(side) >= support + query]
            if ranks.first and len(used) < len(sides.train):
                small = [f"{s.assay.id} ({len(s)})" for s in sides.train if s not in used]
                say_warning(
                    f"left out, with fewer variants than support and query, {support + query}: "
                    + ", ".join(small)
                )
            with shown_progress() as report:
                run = meta_train(
                    predictor,
                    initial_params(predictor, seed, where),
                    used,
                    settings,
                    seed=seed,
                    validation=sides.validation,
                    checkpoint=checkpoint,
                    checkpoint_every=checkpoint_every,
                    log_dir=log_dir,
                    ranks=ranks,
                    progress=lambda step, total, loss: report(algorithm, step, total),
                )
        except DataError as error:
            if ranks.size == 1:
                raise
            say_error(f"process {ranks.rank}: {error}")
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            if ranks.first:
                raise
            raise typer.Exit(130) from None  # all of them stop; the first says so
        if not ranks.first:
            return
        origin = {
            "algorithm": algorithm,
            "settings": asdict(settings),
            "seed": seed,
            "encoder": predictor.encoder.name,
            "encoder_sha256": predictor.encoder.sha256,
            "encoding": encoding,
            "pooling": pooling,
            "data": {side.assay.id: side.assay.sha256 for side in used},
            "best_step": run.best_step,
            "version": __version__,
        }
        save(output, run.params, origin)
    out().print(
        f"{algorithm}: {steps} steps on {len(used)} assays, start of step {run.best_step} "
        f"in {seen_from_here(output)}",
        markup=False,
    )
