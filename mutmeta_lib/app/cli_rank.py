"""The commands ``mutmeta rank``, ``adapt`` and ``predict``: a user's protein, ranked."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument

from mutmeta_lib.app import console
from mutmeta_lib.app.console import option

if TYPE_CHECKING:
    import pandas as pd

    from mutmeta_lib.ranking.model import Ranking

Protein = Annotated[str, Argument(help="A FASTA file with the wild type, or its sequence.")]
Table = Annotated[str | None, Argument(help="A csv, tsv or Excel file of measured variants.")]
Model = option(str, "no-encoder, esm2-8m, a start's file, or ESM-2 by directory or hub name.")
EncoderOf = option(str, "The directory or hub name of the encoder that esm2-8m reads with.")
Direction = option(str, "Which scores are better: higher or lower.")
Property = option(str, "fitness, stability, solubility or expression, if it is one of these.")
Record = option(str | None, "Name of the wild type in a FASTA file of several.")
MutantColumn = option(str, "Name of the column of mutations (else guessed).")
ScoreColumn = option(str, "Name of the column of scores, or of several repeats (else guessed).")
Drop = option(str, "Leave rows out: nonsense,synonymous,indels; alone: all of these.")
Batch = option(int, "How many variants to suggest.", min=1)
Seed = option(int, "Nothing is drawn here: the same input gives the same bytes with every seed.")
Candidates = option(str, "singles, doubles-of-top:50, or a table with a column of mutations.")
Output = option(Path | None, "Write the ranked list here, csv or xlsx.", "-o", "--output")
Report = option(Path | None, "Write a report here, one HTML file.", "--report")
Suggested = option(Path | None, "Write the suggested variants here, FASTA.", "--suggested")
DryRun = option(bool, "Say what is read and used, and stop.", "--dry-run")


def rank_command(
    wild_type: Protein,
    table: Table = None,
    fasta: option(str, "The wild type, where the first argument is the table.") = "",
    output: Output = None,
    report: Report = None,
    suggested: Suggested = None,
    model: Model = "no-encoder",
    encoder: EncoderOf = "",
    direction: Direction = "higher",
    property: Property = "",
    candidates: Candidates = "singles",
    batch: Batch = 10,
    record: Record = None,
    mutant_column: MutantColumn = "",
    score_column: ScoreColumn = "",
    drop: Drop = "",
    seed: Seed = 0,
    dry_run: DryRun = False,
) -> None:
    """Rank a protein's variants, given a few measured ones or none, and say what to measure next.

    mutmeta rank wt.fasta mine.csv -o ranked.csv --report report.html
    """
    given = locals()
    if fasta:
        wild_type, table = fasta, wild_type
    _check(output, report, suggested)
    ranking = _fit(wild_type, table, drop, {name: given[name] for name in _GIVEN})
    if not dry_run:
        _write(ranking, candidates, batch, output, report, suggested)


def adapt_command(
    wild_type: Protein,
    table: Table = None,
    output: option(Path, "Write the model here, a folder.", "-o", "--output") = Path("model"),
    model: Model = "no-encoder",
    encoder: EncoderOf = "",
    direction: Direction = "higher",
    property: Property = "",
    record: Record = None,
    mutant_column: MutantColumn = "",
    score_column: ScoreColumn = "",
    drop: Drop = "",
    seed: Seed = 0,
) -> None:
    """Adapt a model to a protein's few measured variants and keep it, for `mutmeta predict`."""
    given = locals()
    ranking = _fit(wild_type, table, drop, {name: given[name] for name in _GIVEN})
    ranking.save(output)
    print(f"model in {console.seen_from_here(output)}")


def predict_command(
    model: Annotated[Path, Argument(help="A folder that mutmeta adapt wrote.")],
    candidates: Candidates = "singles",
    output: Output = None,
    report: Report = None,
    suggested: Suggested = None,
    encoder: EncoderOf = "",
    batch: Batch = 10,
) -> None:
    """Rank candidates by a model that `mutmeta adapt` wrote."""
    from mutmeta_lib.ranking.model import load_ranking

    _check(output, report, suggested)
    ranking = load_ranking(model, encoder=encoder)
    for sentence in ranking.warnings:
        console.say_warning(sentence)
    _write(ranking, candidates, batch, output, report, suggested)


def _check(*paths: Path | None) -> None:
    from mutmeta_lib.records.files import check_writable

    for path in filter(None, paths):
        check_writable(path)


_GIVEN = ("model", "encoder", "direction", "property", "record", "mutant_column", "score_column")
"""Options that `fit` takes by the same names."""


def _fit(wild_type: str, table: str | None, drop: str, given: dict) -> "Ranking":
    """Fit, and print what was read, what of it is used, and what to beware of."""
    from mutmeta_lib.data.variants import DROP
    from mutmeta_lib.ranking.model import fit

    words = DROP if drop == "all" else [word.strip() for word in drop.split(",") if word.strip()]
    ranking = fit(wild_type, table, drop=words, **given)
    print(f"{ranking.name}: {len(ranking.wild_type)} residues; {ranking.direction} is better")
    if ranking.source:
        read = [f"{role} from '{name}'" for role, name in ranking.source.columns.items()]
        print(f"{', '.join(read)}; name others with --mutant-column and --score-column")
        console.print_table(["", "variants", "rows", "why"], _counted(ranking.measured))
        numbers = ranking.check.round(3).astype(object).where(ranking.check.notna(), None)
        title = "each measured variant predicted from the others"
        console.print_table(list(numbers.columns), numbers.to_numpy().tolist(), title=title)
    for sentence in ranking.warnings:
        console.say_warning(sentence)
    return ranking


def _counted(measured: "pd.DataFrame") -> list[list]:
    """How many variants and rows are used and not used, and why."""
    why = (
        measured["why"]
        .str.replace(r"^row \d+: ", "", regex=True)
        .str.replace(r"'.*?'", "…", regex=True)
    )
    used = measured["used"].map({True: "used", False: "not used"})
    groups = measured.groupby([used, why], sort=False)["n"]
    return [[word, len(rows), int(rows.sum()), text] for (word, text), rows in groups]


def _write(
    ranking: "Ranking",
    candidates: str,
    batch: int,
    output: Path | None,
    report: Path | None,
    suggested: Path | None,
) -> None:
    """Rank, print what to measure next, and write what was asked for, the record beside it."""
    from mutmeta_lib.ranking import write
    from mutmeta_lib.records.progress import shown_progress

    with shown_progress() as progress:
        ranked = ranking.predict(candidates, progress)
    chosen = ranking.suggest(batch, ranked)
    shown = ["mutant", "prediction", "std", "rank", "probability_top", "nearest_measured", "reason"]
    rows = chosen[shown].astype(object).where(chosen[shown].notna(), None).to_numpy().tolist()
    console.print_table([name.replace("_", " ") for name in shown], rows, title="measure next")
    if output:
        write.write_table(output, ranked)
        write.write_record(output.with_suffix(".json"), ranking, candidates)
        where = console.seen_from_here(output)
        print(f"{len(ranked)} variants in {where}, the record in {output.stem}.json beside it")
    if suggested:
        write.write_fasta(suggested, ranking, chosen)
        print(f"{len(chosen)} suggested variants in {console.seen_from_here(suggested)}")
    if report:
        ranking.report(report)
        print(f"report in {console.seen_from_here(report)}")
