"""The public code's comparison, as released and as described, over many draws and seeds.

One draw of the test is what the code reports; here the same test is repeated, scored as there and
scored fairly. The chapter on the protocol prints these tables and numbers.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import pandas as pd

from mutmeta_lib.errors import DataError
from mutmeta_lib.learn import InnerLoop
from mutmeta_lib.models.encoders import load_encoder
from mutmeta_lib.models.predictor import Predictor
from mutmeta_lib.records.record import Record, recorded_parameters
from mutmeta_lib.reproduction.protocol_contrast import (
    contrast_numbers,
    contrast_tables,
    text_table,
)
from mutmeta_lib.reproduction.protocol_data import (
    POOLING,
    TARGETS,
    ProtocolData,
    cap_rows,
    protocol_of_assays,
    read_protocol,
)
from mutmeta_lib.reproduction.protocol_numbers import protocol_numbers
from mutmeta_lib.reproduction.protocol_run import Setting
from mutmeta_lib.reproduction.protocol_runs import Done, Run, loaded, run_all_seeds
from mutmeta_lib.reproduction.protocol_tables import cut_table, rounded, row_table
from mutmeta_lib.study.setting import DEMO, describe_encoder, load_assays, make_record


def protocol_experiment(
    *,
    release_dir: str,
    encoder: str = "",
    targets: Sequence[str] = TARGETS,
    encodings: Sequence[str] = ("separator",),
    max_tokens: int = 256,
    sizes: Sequence[int] = (8, 16, 32),
    draws: int = 200,
    seeds: int = 5,
    initial_epochs: int = 10,
    finetune_epochs: int = 5,
    maml_epochs: int = 30,
    inner_lr: float = 0.01,
    inner_steps: int = 5,
    meta_lr: float = 1e-3,
    initial_peak: float = 3e-3,
    finetune_peak: float = 1e-3,
    slow_peak: float = 1e-5,
    time_rows: Sequence[int] = (500, 1000, 2000, 4000, 8000, 16000),
    time_seeds: int = 2,
    tiny_encodings: Sequence[str] = ("separator",),
    tiny_sizes: Sequence[int] = (16,),
    tiny_draws: int = 200,
    tiny_rows: int = 3000,
    tiny_max_tokens: int = 64,
    tiny_initial_epochs: int = 5,
    profile: str = "full",
    checkpoint_dir: str | None = None,
    cache_dir: str | None = None,
    progress: Callable[[str], None] | None = None,
) -> Record:
    """Run the protocol of the public code with its own files.

    Two encoders: ``tiny``, trained in every phase as the public code trains its encoder, on fewer
    rows and shorter texts; and a pretrained one, frozen, of which the head alone is trained.

    Args:
        release_dir: a copy of the public repository, or ``demo``: a miniature on bundled data.
        encoder: folder or name of the frozen encoder; none when empty.
        targets: names of the target data sets (not read for ``demo``).
        encodings: encodings of the frozen encoder.
        max_tokens: its context: longer texts keep the residues around the mutated sites.
        sizes: support rows, and as many query rows, in meta-training and test.
        draws: draws of the test per target and size; the same for all seeds and methods.
        seeds: repetitions of everything but the draws.
        initial_epochs: epochs of the initial fit.
        finetune_epochs: epochs of fine-tuning.
        maml_epochs: epochs of meta-training, one meta-step per data set each.
        inner_lr: rate of adaptation.
        inner_steps: steps of adaptation.
        meta_lr: Adam's rate in meta-training.
        initial_peak: highest rate of the initial fit (the public code's for a frozen encoder).
        finetune_peak: the same of fine-tuning.
        slow_peak: highest rate of a second fine-tuning (the public code's for a trained encoder).
        time_rows: numbers of rows of every data set whose cost is measured, on the first target.
        time_seeds: repetitions of that.
        tiny_encodings: encodings of ``tiny``; none leaves it out.
        tiny_sizes: its sizes.
        tiny_draws: its draws.
        tiny_rows: rows it is trained on per file at most; 0 means all. Test files are never cut.
        tiny_max_tokens: its context.
        tiny_initial_epochs: its epochs of the initial fit.
        profile: name of the profile, for the record.
        checkpoint_dir: folder in which the parts of a run are kept as they end.
        cache_dir: folder in which the vectors of the frozen encoder are kept.
        progress: called with one line of text per step.

    Returns:
        A record: tables ``rows``, ``cuts``, ``gains``, ``ratios``, ``errors``, ``whole``,
        ``seconds``, ``times``, ``texts``, ``encodings``, ``shares``; numbers
        ``<encoder>_<encoding>_<target>_<method>_<comparison>`` and others, see `protocol_numbers`
        and `contrast_numbers`. Seconds are of the processor, without what other programs
        took; those of a frozen encoder do not contain running it.

    Raises:
        DataError: a table is missing or cannot be read, or has too few rows for the sizes; or
            there is no encoder.

    """
    parameters = recorded_parameters(locals())
    say = progress or (lambda line: None)
    data = _demo() if release_dir == DEMO else read_protocol(release_dir, targets)
    setting = Setting(
        initial_epochs,
        finetune_epochs,
        maml_epochs,
        InnerLoop(inner_lr, inner_steps, first_order=True),
        meta_lr,
        initial_peak,
        finetune_peak,
        slow_peak,
        tuple(sizes),
        draws,
    )
    small = replace(
        setting, initial_epochs=tiny_initial_epochs, sizes=tuple(tiny_sizes), draws=tiny_draws
    )
    capped = cap_rows(data, tiny_rows)
    timing = {"time_rows": tuple(time_rows), "time_seeds": time_seeds}
    runs = []
    if encoder:
        name = _short(load_encoder(encoder).name)
        name = "frozen_tiny" if name == "tiny" else name
        runs.append(Run(name, encoder, True, max_tokens, encodings, data, setting, **timing))
    if tiny_encodings:
        runs.append(
            Run("tiny", "tiny", False, tiny_max_tokens, tiny_encodings, capped, small, **timing)
        )
    if not runs:
        raise DataError("there is no encoder to run", "name one, or encodings for tiny")
    kept = {
        run.name: {
            encoding: run_all_seeds(run, encoding, seeds, checkpoint_dir, cache_dir, say)
            for encoding in run.encodings
        }
        for run in runs
    }
    everything = [done for by_encoding in kept.values() for done in by_encoding.values()]
    tables = {"rows": row_table(data, runs), "cuts": cut_table(runs)}
    for name in ("gains", "ratios", "errors", "whole", "seconds", "times"):
        tables[name] = pd.concat([done.tables[name] for done in everything], ignore_index=True)
    tables |= _contrasts(runs, kept)
    described = describe_encoder(Predictor(loaded(runs[0], 0), POOLING))
    if len(runs) > 1:
        described["provenance"] |= {"beside it": "tiny, trained"}
    made = make_record(
        "protocol",
        profile,
        parameters,
        assays=[],
        encoder=described,
        device="cpu",
        seconds={
            f"{name}, {encoding}": done.seconds
            for name, by_encoding in kept.items()
            for encoding, done in by_encoding.items()
        },
        numbers=protocol_numbers(tables["gains"], tables["whole"], tables["seconds"])
        | contrast_numbers(tables["encodings"], tables["shares"], tables["texts"]),
        tables={name: rounded(table) for name, table in tables.items()},
    )
    made.data.update(data.sha256)
    return made


def _contrasts(
    runs: Sequence[Run], kept: Mapping[str, Mapping[str, Done]]
) -> dict[str, pd.DataFrame]:
    """The tables that set encodings against each other, of all runs."""
    parts: dict[str, list[pd.DataFrame]] = {"texts": [], "encodings": [], "shares": []}
    for run in runs:
        vocabulary = loaded(run, 0).vocabulary
        texts = text_table(run.data, run.encodings, vocabulary, run.max_tokens)
        parts["texts"].append(texts.assign(encoder=run.name))
        found = {encoding: done.results for encoding, done in kept[run.name].items()}
        for name, table in contrast_tables(found, run.setting.sizes, run.name).items():
            parts[name].append(table)
    return {name: pd.concat(tables, ignore_index=True) for name, tables in parts.items()}


def _short(name: str) -> str:
    """An encoder's name in numbers: letters and digits only.

    >>> _short("ESM-2 t6 8M (UR50D), encoder")
    'esm2'
    """
    first = name.split()[0] if name.split() else name
    return "".join(letter for letter in first.lower() if letter.isalnum())


def _demo() -> ProtocolData:
    """The miniature: stability of GB1 first, then two assays of each protein as a data set."""
    assays = load_assays(DEMO, per_protein=2)
    (initial,) = [assay for assay in assays if assay.property == "stability"]
    proteins: dict[str, list] = {}
    for assay in assays:
        if assay is not initial:
            proteins.setdefault(assay.protein, []).append(assay)
    short = {name: name.replace("-", " ").split()[0] for name in proteins}
    return protocol_of_assays(initial, {short[name]: group for name, group in proteins.items()})
