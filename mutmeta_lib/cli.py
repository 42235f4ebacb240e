"""The command ``mutmeta``: the library's calls, one command each.

Bad input ends in one red sentence on standard error and exit code 2, never in a traceback. What is
slow to import is imported by the commands that need it, so that ``--help`` answers at once.
"""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text
from typer import Argument

from mutmeta_lib import __version__
from mutmeta_lib.app import console
from mutmeta_lib.app.cli_rank import adapt_command, predict_command, rank_command
from mutmeta_lib.app.cli_train import train_command
from mutmeta_lib.app.console import DataDir, Device, Encoder, Encoding, option

app = typer.Typer(
    cls=console.Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Few-shot prediction of protein mutation effects with meta-learning.",
)
data = typer.Typer(no_args_is_help=True, help="List, check and fetch measurements.")
app.add_typer(data, name="data")
app.command("rank", cls=console.Words, no_args_is_help=True)(rank_command)
app.command("adapt", cls=console.Words, no_args_is_help=True)(adapt_command)
app.command("predict", no_args_is_help=True)(predict_command)
app.command("train", no_args_is_help=True)(train_command)
WildType = option(str | None, "Name of the wild type in a FASTA file of several.")
RUNS = "book/runs"


@app.callback(invoke_without_command=True)
def main(version: option(bool, "Show version.", "--version") = False) -> None:
    """Few-shot prediction of protein mutation effects with meta-learning."""
    if version:
        print(f"mutmeta {__version__}")
        raise typer.Exit


@data.command("list")
def data_list(
    data_dir: DataDir = "demo",
    property: option(list[str] | None, "Only this property (may be repeated).") = None,
) -> None:
    """List the assays of a data directory."""
    from mutmeta_lib.data.folders import read_data_dir
    from mutmeta_lib.data.proteingym import UNFLIPPED

    assays = read_data_dir(data_dir, properties=property)
    headings = ["assay", "property", "protein", "residues", "variants", "units", "source"]
    told = [
        [a.id, a.property, a.protein, len(a.wild_type), len(a), a.units, a.source] for a in assays
    ]
    console.print_table(headings, told)
    unflipped = [f"{a.id} ({a.sign})" for a in assays if a.id in UNFLIPPED]
    where = f", but not in {', '.join(unflipped)}" if unflipped else " everywhere"
    measured = sum(map(len, assays))
    print(f"{len(assays)} assays, {measured} measured variants; higher is better{where}")


@data.command("check", cls=console.Words)
def data_check(
    csv: Annotated[Path, Argument(help="A csv with the columns mutant and score.")],
    property: option(str, "fitness, stability, solubility or expression."),
    wild_type: option(str | None, "The wild-type sequence.") = None,
    fasta: option(Path | None, "A FASTA file with the wild type.") = None,
    record: WildType = None,
    mutant_column: option(str, "Name of the column of mutations.") = "mutant",
    score_column: option(str, "Name of the column of scores.") = "score",
    drop: option(str, "Leave out nonsense,synonymous,indels,missing; alone: all of these.") = "",
) -> None:
    """Check a table of your own; every problem is listed, with its row and the mend."""
    from mutmeta_lib.data.assays import check_property, check_table
    from mutmeta_lib.data.tables import read_wild_type
    from mutmeta_lib.data.variants import DROP

    check_property(property)
    if (wild_type is None) == (fasta is None):
        raise typer.BadParameter("give the wild type by one of --wild-type and --fasta")
    if wild_type is not None and console.is_file(wild_type):
        raise typer.BadParameter(f"{wild_type} is a file; give it with --fasta")
    sequence = wild_type if fasta is None else read_wild_type(fasta, record)
    words = DROP if drop == "all" else [word.strip() for word in drop.split(",") if word.strip()]
    columns = {"mutant_column": mutant_column, "score_column": score_column}
    rows = check_table(csv, sequence, **columns, drop=words)
    for note in rows.notes:
        console.say_warning(f"{csv.name}: {note}")
    console.refuse(rows.problems)
    left_out = ", ".join(f"{count} {word}" for word, count in rows.left_out.items())
    told = f"rows left out: {left_out}" if left_out else "nothing to mend"
    about = f"{len(rows.variants)} variants of {len(sequence)} residues"
    spread = f"scores from {rows.scores.min():.4g} to {rows.scores.max():.4g}"
    print(f"{csv.name}: {about}, {spread}; {told}")


@data.command("fetch")
def data_fetch(
    cache_dir: option(Path | None, "Where to keep it (default: the user's cache folder).") = None,
) -> None:
    """Download ProteinGym's substitution assays from their Zenodo record."""
    from mutmeta_lib.data.proteingym import fetch_proteingym
    from mutmeta_lib.records.files import check_writable

    if cache_dir is not None:
        check_writable(cache_dir / "x")
    print(fetch_proteingym(cache_dir))


@app.command("encode", no_args_is_help=True)
def encode_command(
    sequence: Annotated[str, Argument(help="The wild type, or a FASTA file that holds it.")],
    mutations: Annotated[list[str], Argument(help="A24G, A24G:F30L, p.Ala24Gly or WT, each.")],
    encoding: option(str, "Name of an encoding, or 'all'.") = "all",
    encoder: Encoder = "small",
    max_tokens: option(int | None, "Shorten the encoder's context.") = None,
    record: WildType = None,
) -> None:
    """Print variants as the tokens that the model sees; sites are underlined and counted from 0."""
    from mutmeta_lib.data import variants
    from mutmeta_lib.data.tables import read_wild_type

    wild_type = read_wild_type(sequence, record) if console.is_file(sequence) else sequence
    variants.check_sequence(wild_type)
    parsed = [variants.parse_variant(text) for text in mutations]
    for variant in parsed:
        variants.check_variant(variant, wild_type)

    # Only now: these import torch.
    from mutmeta_lib.models.encoder import load_encoder
    from mutmeta_lib.tasks.encodings import ENCODINGS, encode

    loaded = load_encoder(encoder)
    limit, vocabulary = max_tokens or loaded.max_tokens, loaded.vocabulary
    for variant in parsed:
        headings = ("encoding", "tokens", "sites", "as the model sees it")
        table = Table(*headings, box=None, pad_edge=False)
        for name in ENCODINGS if encoding == "all" else [encoding]:
            written = encode(name, wild_type, variant, vocabulary, limit)
            shown = Text(" ").join(
                Text(token, style="bold underline" if index in written.sites else "")
                for index, token in enumerate(vocabulary.show(written.token_ids))
            )
            sites = ", ".join(map(str, written.sites)) or "none"
            table.add_row(name, str(len(written.token_ids)), sites, shown)
        title = f"{variants.format_variant(variant)} on {len(wild_type)} residues, encoder "
        console.out().print(Text(title + loaded.name, style="bold"))
        console.out().print(table)


@app.command("run", cls=console.Words, no_args_is_help=True)
def run_command(
    notebook: Annotated[Path, Argument(help="An .ipynb file.")],
    parameter: option(list[str] | None, "Set a parameter.", "-p", metavar="NAME VALUE") = None,
    profile: option(str | None, "Of params/ beside the notebook: quick, class or full.") = None,
    output: option(Path | None, f"Default: {RUNS}/<profile>/<notebook>.", "-o", "--output") = None,
) -> None:
    """Execute a notebook; unknown parameters and wrong types are refused before it starts."""
    from papermill import PapermillExecutionError

    from mutmeta_lib.app.notebooks import default_parameters, parse_value, run_notebook

    defaults = default_parameters(notebook)
    given = {}
    for name, equals, text in [item.partition("=") for item in parameter or []]:
        if not equals:
            raise typer.BadParameter(f"-p {name} needs a value")
        given[name] = parse_value(text, defaults.get(name))
    kept = notebook.resolve().parent.parent / RUNS / (profile or "own") / f"{notebook.stem}.ipynb"
    target = output or kept
    try:
        run_notebook(notebook, target, given, profile=profile)
    except PapermillExecutionError as error:
        console.say_error(f"{notebook.name} stopped in cell {error.cell_index}: {error.ename}")
        typer.echo("\n".join(error.traceback), err=True)
        raise typer.Exit(1) from None
    print(f"{notebook.name} ran; executed copy: {console.seen_from_here(target)}")


@app.command("sweep", no_args_is_help=True)
def sweep_command(
    file: Annotated[Path, Argument(help="A sweep file (YAML); see the book, 'Run it again'.")],
    dry_run: option(bool, "Check the file and list its runs; run nothing.", "--dry-run") = False,
) -> None:
    """Run a notebook with many parameters and seeds, beside each other; needs Ray.

    What is finished already is skipped; what fails is tried again, then reported (exit code 1).
    """
    from mutmeta_lib.app.sweep import planned, read_sweep, run_sweep
    from mutmeta_lib.records.progress import shown_progress

    sweep = read_sweep(file)
    index = sweep.output / f"{file.stem}.index.json"
    with shown_progress() as report:
        results = planned(sweep) if dry_run else run_sweep(sweep, index, report)
    rows, failed = [], [run for run, outcome in results.items() if outcome.error]
    for run, outcome in results.items():
        told = [outcome.state, outcome.seconds, outcome.record]
        rows.append([run.record.stem, *run.varied.values(), *told])
    headings = ["run", *next(iter(results)).varied, "state", "seconds", "record"]
    console.print_table(headings, rows)
    for run in failed:
        console.say_error(f"{run.record.stem} failed; {results[run].error}")
    if not dry_run:
        print(f"index of the runs: {console.seen_from_here(index)}")
    if failed:
        raise typer.Exit(1)


@app.command("evaluate")
def evaluate_command(
    data_dir: DataDir = "demo",
    encoder: Encoder = "small",
    encoding: Encoding = "separator",
    methods: option(str, "Names; a wrong one lists them all.") = "maml,multitask,finetune,ridge",
    shots: option(str, "Support sizes, separated by commas.") = "0,1,5,10",
    seeds: option(int, "Repetitions with new draws.", min=1) = 2,
    folds: option(int, "Groups of proteins.", min=3) = 3,
    meta_steps: option(int, "Outer steps.", min=1) = 20,
    first_order: option(bool, console.ORDER, "--first-order/--second-order") = True,
    per_protein: option(int, "Assays per protein and property; 0 means all.", min=0) = 4,
    max_query: option(int, "Variants to predict per task; 0 means all.", min=0) = 64,
    device: Device = "auto",
    metric: option(str, "spearman, ndcg or relative_mse.") = "spearman",
    workers: option(int, "Processes to share the runs.", min=1) = 1,
    checkpoint_dir: option(str | None, "Keep checkpoints; a killed run goes on from them.") = None,
    cache_dir: option(str | None, "Keep embeddings here.") = None,
    study: option(str, "A benchmark of the book, as it is there; most options have no say.") = "",
    output: option(Path | None, "Write the record here (json).") = None,
) -> None:
    """Few-shot curves on proteins that meta-training has not seen, methods side by side.

    The defaults are a demonstration of a few minutes, not evidence; raise them for that, or make a
    table of the book again with --study benchmark, benchmark_family, benchmark_seeds,
    benchmark_reads or benchmark_ablations.
    """
    names = [name.strip() for name in methods.split(",")]
    sizes = console.whole_numbers(shots, "--shots")

    from mutmeta_lib.learn.methods import METHODS
    from mutmeta_lib.records.files import check_writable
    from mutmeta_lib.reproduction.reports import by_scan
    from mutmeta_lib.study.benchmark import ARMS
    from mutmeta_lib.study.case import Where
    from mutmeta_lib.study.run import recorded
    from mutmeta_lib.study.study import Study, grid

    console.check_known([metric], ("spearman", "ndcg", "relative_mse"), "metric")
    console.check_known(names, METHODS, "method")
    console.check_known([study or "benchmark"], ARMS, "study")
    console.check_device(device)
    folders = [Path(folder, "x") for folder in (checkpoint_dir, cache_dir) if folder]
    for path in [*folders, *([output] if output else [])]:
        check_writable(path)
    where = Where(device, workers, checkpoint_dir, cache_dir)
    if study:
        _print_benchmark(study, data_dir, encoder, metric, where, output)
        return
    asked = Study(
        data_dir=data_dir,
        reads=grid(encoder=encoder, encoding=encoding, depth="all"),
        methods=names,
        shots=sizes,
        seeds=seeds,
        n_folds=folds,
        labels="measured",
        decided_at=max(sizes) if max(sizes) > 1 else 10,  # one label scales nothing
        meta_steps=meta_steps,
        tasks_per_step=4,
        query=16,
        inner_lr=0.01,
        meta_lr=1e-3,
        first_order=first_order,
        per_protein=per_protein,
        max_query=max_query,
    )
    record, _ = recorded("few_shot", asked, path=output, tables=by_scan, profile="own", where=where)
    summary = record.table("summary").query("metric == @metric")
    cells = {
        (row.method, row.shots): f"{row.mean:.2f} [{row.low:.2f}, {row.high:.2f}]"
        for row in summary.itertuples()
        if row.mean == row.mean
    }
    console.print_table(
        ["method", *["1 shot" if size == 1 else f"{size} shots" for size in sizes]],
        [[name, *[cells.get((name, size), "not defined") for size in sizes]] for name in names],
        title=f"{metric}: mean over assays [95 % interval]",
    )
    told = f"{int(summary['n_assays'].max())} test assays, {seeds} seeds, encoder {encoder}"
    caution = "intervals resample assays, and assays of one protein are not independent"
    print(f"{told}, {encoding}; {caution}")


def _print_benchmark(name: str, data_dir: str, encoder: str, metric: str, where, output) -> None:
    from mutmeta_lib.study.benchmark import benchmark

    record = benchmark(name, data_dir, encoder, path=output, where=where, profile="own")
    table = record.table("means").query("metric == @metric and group == 'all'")
    for (arm, read, swap), rows in table.groupby(["arm", "read", "swap"], sort=False):
        wide = rows.pivot(index="method", columns="shots", values="mean")
        console.print_table(
            ["method", *map(str, wide.columns)],
            [
                [name, *(f"{one:.3f}" if one == one else "-" for one in row)]
                for name, *row in wide.reindex(rows["method"].unique()).itertuples()
            ],
            title=f"{arm}, {read}{'' if swap == 'same' else f', {swap}'}: mean {metric} by labels",
        )
    n, clusters = (int(table[column].max()) for column in ("n_assays", "n_units"))
    print(f"means over {n} test assays of {clusters} clusters; the record has their intervals")


if __name__ == "__main__":
    app()
