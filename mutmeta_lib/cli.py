"""The command ``mutmeta``: the library's calls, one command each.

Bad input ends in one red sentence on standard error and exit code 2, never in a traceback. Modules
that import torch are imported by the commands that need them, so that ``--help`` answers at once.
"""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from mutmeta_lib import __version__
from mutmeta_lib.app.cli_train import train_command
from mutmeta_lib.app.console import (
    Commands,
    DropCommand,
    NameValueCommand,
    check_device,
    check_known,
    curve_table,
    is_file,
    out,
    said_warnings,
    say_error,
    say_problems,
    say_progress,
    say_warning,
    seen_from_here,
    sweep_table,
    whole_numbers,
)

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Few-shot prediction of protein mutation effects with meta-learning.",
)
RECORD = typer.Option(help="Name of the wild type in a FASTA file of several.")
data = typer.Typer(no_args_is_help=True, help="List, check and fetch measurements.")
app.add_typer(data, name="data")
app.command("train", no_args_is_help=True)(train_command)


def show_version(wanted: bool) -> None:
    """Print the version and stop."""
    if wanted:
        print(f"mutmeta {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show version.")
    ] = False,
) -> None:
    """Few-shot prediction of protein mutation effects with meta-learning."""


@data.command("list")
def data_list(
    data_dir: Annotated[
        str,
        typer.Option(help="A folder in the layout of the data card or of ProteinGym, or 'demo'."),
    ] = "demo",
    property: Annotated[
        list[str] | None, typer.Option(help="Only this property (may be repeated).")
    ] = None,
) -> None:
    """List the assays of a data directory."""
    from mutmeta_lib.data.assays import PROTEINGYM_UNFLIPPED, demo_dir, read_data_dir

    with said_warnings():
        assays = read_data_dir(demo_dir() if data_dir == "demo" else data_dir, properties=property)
    table = Table("assay", "property", "protein", "residues", "variants", "units", "source")
    for assay in assays:
        cells = [assay.id, assay.property, assay.protein, len(assay.wild_type), len(assay)]
        table.add_row(*[Text(str(cell)) for cell in [*cells, assay.units, assay.source]])
    out().print(table)
    measured = sum(map(len, assays))
    unflipped = [f"{a.id} ({a.sign})" for a in assays if a.id in PROTEINGYM_UNFLIPPED]
    where = f"higher is better, but not in {', '.join(unflipped)}" if unflipped else ""
    out().print(
        f"{len(assays)} assays, {measured} measured variants; "
        f"{where or 'higher is better everywhere'}",
        markup=False,
    )


@data.command("check", cls=DropCommand)
def data_check(
    csv: Annotated[Path, typer.Argument(help="A csv with the columns mutant and score.")],
    property: Annotated[str, typer.Option(help="fitness, stability, solubility or expression.")],
    wild_type: Annotated[str | None, typer.Option(help="The wild-type sequence.")] = None,
    fasta: Annotated[Path | None, typer.Option(help="A FASTA file with the wild type.")] = None,
    record: Annotated[str | None, RECORD] = None,
    mutant_column: Annotated[str, typer.Option(help="Name of the column of mutations.")] = "mutant",
    score_column: Annotated[str, typer.Option(help="Name of the column of scores.")] = "score",
    drop: Annotated[
        str,
        typer.Option(
            help="Rows to leave out and count: --drop nonsense,synonymous,indels,missing, or "
            "--drop alone for all of these."
        ),
    ] = "",
) -> None:
    """Check a table of your own; every problem is listed, with its row and the mend."""
    from mutmeta_lib.data.assays import check_table
    from mutmeta_lib.data.fasta import read_wild_type
    from mutmeta_lib.data.manifest import check_property

    check_property(property)
    if (wild_type is None) == (fasta is None):
        raise typer.BadParameter("give the wild type by one of --wild-type and --fasta")
    if wild_type is not None and is_file(wild_type):
        raise typer.BadParameter(f"{wild_type} is a file; give it with --fasta")
    sequence = wild_type if fasta is None else read_wild_type(fasta, record)
    words = [word.strip() for word in drop.split(",") if word.strip()]
    columns = {"mutant_column": mutant_column, "score_column": score_column}
    rows = check_table(csv, sequence, **columns, drop=words)
    for note in rows.notes:
        say_warning(f"{csv.name}: {note}")
    say_problems(rows.problems)
    if rows.problems:
        raise typer.Exit(2)
    left_out = ", ".join(f"{count} {word}" for word, count in rows.left_out.items())
    out().print(
        f"{csv.name}: {len(rows.variants)} variants of {len(sequence)} residues, scores from "
        f"{rows.scores.min():.4g} to {rows.scores.max():.4g}; "
        + (f"rows left out: {left_out}" if left_out else "nothing to mend"),
        markup=False,
    )


@data.command("fetch")
def data_fetch(
    cache_dir: Annotated[
        Path | None, typer.Option(help="Where to keep it (default: the user's cache folder).")
    ] = None,
) -> None:
    """Download ProteinGym's substitution assays from their Zenodo record."""
    from mutmeta_lib.data.download import fetch_proteingym
    from mutmeta_lib.records.drafts import check_writable

    if cache_dir is not None:
        check_writable(cache_dir / "x")
    out().print(str(fetch_proteingym(cache_dir)), markup=False)


@app.command("encode", no_args_is_help=True)
def encode_command(
    sequence: Annotated[str, typer.Argument(help="The wild type, or a FASTA file that holds it.")],
    mutations: Annotated[
        list[str], typer.Argument(help="One variant each: A24G, A24G:F30L, p.Ala24Gly or WT.")
    ],
    encoding: Annotated[str, typer.Option(help="Name of an encoding, or 'all'.")] = "all",
    encoder: Annotated[
        str, typer.Option(help="'tiny', a local directory or a Hugging Face name.")
    ] = "tiny",
    max_tokens: Annotated[int | None, typer.Option(help="Shorten the encoder's context.")] = None,
    record: Annotated[str | None, RECORD] = None,
) -> None:
    """Print variants as the tokens that the model sees; sites are underlined and counted from 0."""
    from mutmeta_lib.data.fasta import read_wild_type
    from mutmeta_lib.data.variants import (
        check_sequence,
        check_variant,
        format_variant,
        parse_variant,
    )

    wild_type = read_wild_type(sequence, record) if is_file(sequence) else sequence
    check_sequence(wild_type)
    variants = [parse_variant(text) for text in mutations]
    for variant in variants:
        check_variant(variant, wild_type)

    # Only now: these import torch.
    from mutmeta_lib.models.encoders import load_encoder
    from mutmeta_lib.tasks.encodings import ENCODINGS, encode

    loaded = load_encoder(encoder)
    limit = max_tokens or loaded.max_tokens
    vocabulary = loaded.vocabulary
    console = out()
    for variant in variants:
        table = Table(box=None, pad_edge=False)
        for heading in ("encoding", "tokens", "sites", "as the model sees it"):
            table.add_column(heading)
        for name in ENCODINGS if encoding == "all" else [encoding]:
            written = encode(name, wild_type, variant, vocabulary, limit)
            shown = Text()
            for index, token in enumerate(vocabulary.show(written.token_ids)):
                shown.append(" " if index else "")
                shown.append(token, style="bold underline" if index in written.sites else "")
            sites = ", ".join(map(str, written.sites)) or "none"
            table.add_row(name, str(len(written)), sites, shown)
        console.print(
            f"{format_variant(variant)} on {len(wild_type)} residues, encoder {loaded.name}",
            style="bold",
            markup=False,
        )
        console.print(table)


@app.command("run", cls=NameValueCommand, no_args_is_help=True)
def run_command(
    notebook: Annotated[Path, typer.Argument(help="An .ipynb file.")],
    parameter: Annotated[
        list[str] | None,
        typer.Option("-p", metavar="NAME VALUE", help="Set a parameter (may be repeated)."),
    ] = None,
    profile: Annotated[
        str | None, typer.Option(help="A file in params/ beside the notebook: quick or full.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Default: book/runs/<profile>/<notebook>."),
    ] = None,
) -> None:
    """Execute a notebook; unknown parameters and wrong types are refused before it starts."""
    from papermill import PapermillExecutionError

    from mutmeta_lib.app.notebooks import default_parameters, parse_value, run_notebook

    defaults = default_parameters(notebook)
    given = {}
    for item in parameter or []:
        name, equals, text = item.partition("=")
        if not equals:
            raise typer.BadParameter(f"-p {item} needs a value")
        given[name] = parse_value(text, defaults.get(name))
    runs = notebook.resolve().parent.parent / "book" / "runs"
    target = output or runs / (profile or "own") / f"{notebook.stem}.ipynb"
    try:
        run_notebook(notebook, target, given, profile=profile)
    except PapermillExecutionError as error:
        say_error(f"{notebook.name} stopped in cell {error.cell_index}: {error.ename}")
        typer.echo("\n".join(error.traceback), err=True)
        raise typer.Exit(1) from None
    out().print(f"{notebook.name} ran; executed copy: {seen_from_here(target)}", markup=False)


@app.command("sweep", no_args_is_help=True)
def sweep_command(
    file: Annotated[
        Path, typer.Argument(help="A sweep file (YAML); see the book, 'Run it again'.")
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the file and list its runs; run nothing.")
    ] = False,
) -> None:
    """Run a notebook with many parameters and seeds, beside each other; needs Ray.

    What is finished already is skipped; what fails is tried again, then reported (exit code 1).
    """
    from mutmeta_lib.app.sweep import read_sweep, sweep_problems

    problems = sweep_problems(file)
    say_problems(problems)
    if problems:
        raise typer.Exit(2)
    sweep = read_sweep(file)

    from mutmeta_lib.app.sweep_outcomes import index_path, planned
    from mutmeta_lib.app.sweep_ray import run_sweep

    results = planned(sweep) if dry_run else run_sweep(sweep, progress=say_progress)
    console = out()
    console.print(sweep_table(results))
    if dry_run:
        return
    console.print(f"index of the runs: {seen_from_here(index_path(sweep))}", markup=False)
    failed = [(run, outcome) for run, outcome in results if outcome.state == "failed"]
    for run, outcome in failed:
        times = "once" if outcome.attempts == 1 else f"{outcome.attempts} times"
        say_error(f"{run.name} failed {times}; {outcome.reason()}")
    if failed:
        raise typer.Exit(1)


@app.command("evaluate")
def evaluate_command(
    data_dir: Annotated[
        str, typer.Option(help="A folder in the layout of the data card, or 'demo'.")
    ] = "demo",
    encoder: Annotated[
        str, typer.Option(help="'tiny', a local directory or a Hugging Face name.")
    ] = "tiny",
    encoding: Annotated[str, typer.Option(help="How variants are written.")] = "separator",
    methods: Annotated[
        str,
        typer.Option(
            help="Names, separated by commas, out of maml, multitask, finetune, anil, boil, "
            "reptile, metasgd, r2d2, deepkernel, ridge, gp, onehot, blosum, mean, and, for "
            "encoders with a language-model head, zero_shot and zero_shot_wt."
        ),
    ] = "maml,multitask,finetune,ridge",
    shots: Annotated[str, typer.Option(help="Support sizes, separated by commas.")] = "0,1,5,10",
    seeds: Annotated[int, typer.Option(min=1, help="Repetitions with new draws.")] = 2,
    folds: Annotated[int, typer.Option(min=3, help="Groups of proteins.")] = 3,
    meta_steps: Annotated[int, typer.Option(min=1, help="Outer steps.")] = 20,
    first_order: Annotated[
        bool, typer.Option("--first-order/--second-order", help="Order of the meta-gradient.")
    ] = True,
    per_protein: Annotated[
        int, typer.Option(min=0, help="Assays per protein and property; 0 means all.")
    ] = 4,
    max_query: Annotated[
        int, typer.Option(min=0, help="Variants to predict per task; 0 means all.")
    ] = 64,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    metric: Annotated[str, typer.Option(help="spearman, ndcg or relative_mse.")] = "spearman",
    workers: Annotated[int, typer.Option(min=1, help="Processes to share the runs.")] = 1,
    checkpoint_dir: Annotated[
        str | None, typer.Option(help="Keep checkpoints here; a killed run goes on from them.")
    ] = None,
    cache_dir: Annotated[str | None, typer.Option(help="Keep embeddings here.")] = None,
    log_dir: Annotated[str | None, typer.Option(help="Folder of TensorBoard's curves.")] = None,
    output: Annotated[Path | None, typer.Option(help="Write the record here (json).")] = None,
) -> None:
    """Few-shot curves on proteins that meta-training has not seen, methods side by side.

    The defaults are a demonstration of a few minutes, not evidence; raise them for that.
    """
    support_sizes = whole_numbers(shots, "--shots")
    names = [name.strip() for name in methods.split(",")]

    from mutmeta_lib.records.drafts import check_writable
    from mutmeta_lib.records.record import write_record
    from mutmeta_lib.study.few_shot import ALL_METHODS, REPORTED, few_shot_experiment

    check_known([metric], REPORTED, "metric")
    check_known(names, ALL_METHODS, "method")
    check_device(device)
    folders = [folder for folder in (checkpoint_dir, cache_dir, log_dir) if folder]
    for path in ([output] if output else []) + [Path(folder, "x") for folder in folders]:
        check_writable(path)
    record = few_shot_experiment(
        data_dir=data_dir,
        encoder=encoder,
        encoding=encoding,
        methods=names,
        shots=support_sizes,
        seeds=seeds,
        n_folds=folds,
        meta_steps=meta_steps,
        first_order=first_order,
        per_protein=per_protein,
        max_query=max_query or None,
        device=device,
        workers=workers,
        checkpoint_dir=checkpoint_dir,
        cache_dir=cache_dir,
        log_dir=log_dir,
        profile="own",
    )
    if output is not None:
        write_record(record, output)
    summary = record.table("summary")
    summary = summary[summary["metric"] == metric]
    console = out()
    console.print(curve_table(f"{metric}: mean over assays [95 % interval]", summary, names))
    console.print(
        f"{int(summary['n_assays'].max())} test assays, {seeds} seeds, encoder {encoder}, "
        f"{encoding}; intervals resample assays, and assays of one protein are not independent",
        markup=False,
    )


if __name__ == "__main__":
    app()
