"""A protein and its few measurements become a ranking: adapted, checked, and told in words.

The start that comes with the package is a Gaussian process whose prior was learned on other
proteins (`learn.ranker`); it is given the user's measurements and ranks by its posterior mean.
"""

import hashlib
import json
import math
import platform
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from mutmeta_lib import __version__
from mutmeta_lib.data.assays import PROPERTIES, Assay
from mutmeta_lib.data.folders import read_list
from mutmeta_lib.data.variants import Variant, format_hgvs, format_variant, parse_variant
from mutmeta_lib.errors import DataError
from mutmeta_lib.learn.ranker import spread
from mutmeta_lib.learn.start import PRETRAINED, Adapted, Start, load_pretrained, load_start
from mutmeta_lib.models.sites import neighbourhood
from mutmeta_lib.ranking.candidates import read_candidates
from mutmeta_lib.ranking.check import CENTRAL, FEW, MODEL, ONEHOT, ZERO, read_sites, self_check
from mutmeta_lib.ranking.tables import Measurements, read_measurements, read_protein
from mutmeta_lib.records.files import layout, plain, replacing
from mutmeta_lib.records.progress import Report, silent

DIRECTIONS = ("higher", "lower")
_CHUNK, _DIGITS = 4000, 6
COVERAGE = {
    "no-encoder": {5: 0.854, 10: 0.907, 20: 0.924, 40: 0.931, 100: 0.936},
    "esm2-8m": {5: 0.852, 10: 0.904, 20: 0.921, 40: 0.928, 100: 0.933},
}
"""Model -> number of labels -> share of new measurements that its 90 % intervals held, on the 197
assays of the record ``benchmark``, by rankers that had seen no homologue."""
AHEAD = 0.2
"""A control's lead in the check that is told: smaller ones are common with ten labels."""
UNLIKE = 0.36
"""No one of the 197 wild types of the list ``benchmark`` has a larger `unlikeness`."""


@dataclass(frozen=True, eq=False)
class Ranking:
    """A protein's variants as a model sees them after the user's measurements; `fit` makes it.

    ``measured`` are the rows of the user's table (`tables.Measurements.told`), ``check`` has rows
    model, without labels, one-hot ridge with their leave-one-out ``spearman`` and ``error`` (root
    mean square, user's units) on ``n`` variants, ``left_one_out`` each variant's ``measured``,
    ``predicted``, ``std``, ``lower``, ``upper``. All are in the user's units and direction; without
    two different measurements there are no units, and scores are normal scores of an assay.

    ``best`` is what ranks: always the model. Of the rules by which a user's own labels would
    overrule it none gained on validation assays (record ``overruling``), so that none was adopted;
    ``warnings`` say where a control does better in the check by `AHEAD` or more.
    """

    wild_type: str
    name: str
    property: str
    direction: str
    measured: pd.DataFrame
    check: pd.DataFrame
    left_one_out: pd.DataFrame
    warnings: tuple[str, ...]
    best: str
    parameters: Mapping[str, Any]
    model: Mapping[str, str]
    adapted: Adapted = field(repr=False)
    factor: float
    source: Measurements | None = field(repr=False)

    @property
    def has_units(self) -> bool:
        """Whether predictions are in the user's units."""
        return self.adapted.label_scale.identified

    @property
    def coverage(self) -> tuple[int, float] | None:
        """Of `COVERAGE` the number of labels nearest below the user's, and its share, if any."""
        known, n = COVERAGE.get(self.model["name"], {}), len(self.left_one_out)
        fewer = [labels for labels in known if labels <= n]
        return (fewer[-1], known[fewer[-1]]) if fewer and self.has_units else None

    @cached_property
    def singles(self) -> pd.DataFrame:
        """All single variants, ranked, as `predict` gives them."""
        return self._ranked(read_candidates("singles", self.wild_type, self._best), silent)

    def predict(
        self,
        variants: str | Path | Sequence[Variant | str] | None = None,
        progress: Report = silent,
    ) -> pd.DataFrame:
        """Rank all single variants, or those of `candidates.read_candidates`; the best first.

        Columns: mutant, hgvs_pro, prediction, std, lower, upper (of a new measurement, 90 %), rank,
        probability_top, nearest_measured, measured (the user's own value). ``probability_top`` is
        that of being in the best tenth of these candidates: they are taken as independent normal
        variables, and the mark as the value which a tenth of them is expected to pass.
        ``nearest_measured`` is the measured variant nearest along the chain.
        """
        if variants is None:
            return self.singles.copy()
        return self._ranked(read_candidates(variants, self.wild_type, self._best), progress)

    def suggest(self, n: int = 10, table: pd.DataFrame | None = None) -> pd.DataFrame:
        """What to measure next: ``n`` unmeasured candidates, columns of `predict` and ``reason``.

        Taken in order of prediction plus one deviation, in the good direction (an upper
        confidence bound: half exploits, half explores), and no position twice as long as there are
        others, so that a wrong guess about one site does not cost the round. Candidates are those
        of a ``table`` by `predict`, by default all single variants.
        """
        table = self.singles if table is None else table
        table = table[table["measured"].isna() & (table["mutant"] != "WT")]
        sign = 1 if self.direction == "higher" else -1
        hopes = sign * table["prediction"] + table["std"].fillna(0.0)
        places = [{s.position for s in parse_variant(text)} for text in table["mutant"]]
        taken = spread_out(hopes.to_numpy(), places, n)
        chosen = table.iloc[taken].copy()
        unmeasured = table["rank"].rank().astype(int)
        chosen["reason"] = [
            f"number {place} of those not measured, by prediction"
            + ("" if place <= n else "; the model is unsure of it, and it may be better")
            for place in unmeasured.iloc[taken]
        ]
        return chosen.reset_index(drop=True)

    def report(self, path: str | Path) -> None:
        """Write the report: one HTML file that asks for nothing else."""
        from mutmeta_lib.ranking.report import write_report

        write_report(self, path)

    def record(self) -> dict[str, Any]:
        """What the list was made of: model, hashes, versions, parameters, and what was left out."""
        told = self.measured
        packages = ("numpy", "pandas", "torch")
        # Of a model and an encoder in files the names alone: no place of a machine.
        named = {"model": self.model["name"], "encoder": Path(self.parameters["encoder"]).name}
        return plain(
            {
                "experiment": "ranking",
                "model": dict(self.model),
                "versions": {
                    "mutmeta": __version__,
                    "python": platform.python_version(),
                    **{name: version(name) for name in packages},
                },
                "parameters": {**self.parameters, **named},
                "wild_type": {
                    "name": self.name,
                    "residues": len(self.wild_type),
                    "sha256": hashlib.sha256(self.wild_type.encode()).hexdigest(),
                },
                "columns": dict(self.source.columns) if self.source else {},
                "measured_sha256": self.adapted.assay.sha256,
                "used": int(told["used"].sum()),
                "not_used": told.loc[~told["used"], ["mutant", "why"]],
                "check": self.check,
                "coverage_elsewhere": self.coverage,
                "ranked_by": self.best,
                "warnings": list(self.warnings),
            }
        )

    def save(self, folder: str | Path) -> None:
        """Keep the model as a folder: the wild type, the measurements as they came, the record.

        Adapting takes no time, so that no weights are kept: `load_ranking` adapts again.
        """
        folder = Path(folder)
        kept = {"wild_type.fasta": f">{self.name}\n{self.wild_type}\n"}
        if self.source:
            kept["measurements.csv"] = self.source.text
        kept["model.json"] = layout(self.record() | {"parameters": plain(self.parameters)}) + "\n"
        for name, text in kept.items():
            with replacing(folder / name) as temporary:
                temporary.write_text(text, encoding="utf-8", newline="")

    def _best(self, n: int) -> list[Variant]:
        return [parse_variant(text) for text in self.singles["mutant"].head(n)]

    def _ranked(self, variants: Sequence[Variant], progress: Report) -> pd.DataFrame:
        """The table of `predict`."""
        if any(len(one) > 1 for one in variants):
            told = "candidates with several substitutions are extrapolated: the model learned from "
            warnings.warn(f"{told}single ones and adds their effects up", stacklevel=3)
        if not variants:
            raise DataError("there is no candidate", "give some, or leave them out for all singles")
        found = []
        size = max(1, _CHUNK // max(1, max(map(len, variants))))
        for first in range(0, len(variants), size):
            found.append(_posterior(self.adapted, variants[first : first + size], self.property))
            progress("rank", min(first + size, len(variants)), len(variants))
        mean, std = np.concatenate(found, axis=1)
        top = probability_top(mean, std)
        prediction, std = self.factor * mean, abs(self.factor) * std
        if not self.has_units:
            std = np.full_like(std, np.nan)
        texts = [format_variant(one) for one in variants]
        known = self.measured[self.measured["used"] | (self.measured["mutant"] == "WT")]
        own = dict(zip(known["mutant"], known["score"], strict=True))
        table = pd.DataFrame(
            {
                "mutant": texts,
                "hgvs_pro": [format_hgvs(one) for one in variants],
                "prediction": prediction,
                "std": std,
                "lower": prediction - CENTRAL * std,
                "upper": prediction + CENTRAL * std,
                "rank": 0,
                "probability_top": top,
                "nearest_measured": nearest(variants, self.adapted.assay.variants),
                "measured": [own.get(text, np.nan) for text in texts],
            }
        )
        digits = ["prediction", "std", "lower", "upper", "probability_top"]
        table[digits] = table[digits].map(lambda value: float(f"{value:.{_DIGITS}g}"))
        order = np.argsort(-mean, kind="stable")
        table = table.iloc[order].reset_index(drop=True)
        table["rank"] = np.arange(1, len(table) + 1)
        return table


def fit(
    wild_type: str | Path,
    table: str | Path | pd.DataFrame | None = None,
    *,
    model: str = "no-encoder",
    encoder: str = "",
    direction: str = "higher",
    property: str = "",
    name: str = "",
    record: str | None = None,
    mutant_column: str = "",
    score_column: str = "",
    drop: Sequence[str] = (),
) -> Ranking:
    """Adapt a meta-trained start to a protein's few measurements, or to none.

    ``wild_type`` is a sequence or a FASTA file, ``table`` a csv, tsv or Excel file or a DataFrame
    (`tables.read_measurements`). ``model`` is ``no-encoder``, ``esm2-8m`` with its ``encoder`` (a
    directory, or a name on the Hugging Face hub, which is asked for nothing else), a file of
    `mutmeta train`, or such a directory or name itself. Lower scores are better with ``direction``
    ``lower``. A ``property`` outside of `data.assays.PROPERTIES` is told to nobody.

    >>> import mutmeta_lib as mm
    >>> measured = pd.DataFrame({"mutant": ["K2R", "T3P", "I6V", "L27K"], "Tm": [61, 52, 60.5, 55]})
    >>> model = mm.fit("MKTAYIAKQRQISFVKSHFSRQLEERLGLIE", measured, property="stability")
    >>> model.predict().columns.tolist()  # doctest: +ELLIPSIS
    ['mutant', 'hgvs_pro', 'prediction', 'std', 'lower', 'upper', 'rank', 'probability_top', ...]
    >>> len(model.predict()), len(model.predict("doubles-of-top:5")) <= 10, len(model.suggest(3))
    (589, True, 3)
    """
    if direction not in DIRECTIONS:
        raise DataError(f"there is no direction '{direction}'", "use higher or lower")
    if model not in PRETRAINED and Path(model).suffix != ".safetensors":
        model, encoder = "esm2-8m", encoder or model
    own_name, sequence = read_protein(wild_type, record)
    columns = {"mutant_column": mutant_column, "score_column": score_column, "drop": drop}
    source = None if table is None else read_measurements(table, sequence, **columns)
    said: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        start, about = _load(model, encoder)
    said += [str(one.message) for one in caught if one.category is UserWarning]
    variants, scores = (source.variants, source.scores) if source else ((), np.empty(0))
    # Labels are scaled anyhow; a factor first keeps tiny and huge units out of float32's way.
    factor = float(np.abs(scores).max(initial=0.0)) or 1.0
    factor = -factor if direction == "lower" else factor
    told = property.lower() in PROPERTIES
    about_it = "measured", name or own_name, property.lower() if told else PROPERTIES[0], sequence
    assay = Assay(*about_it, variants, scores / factor)
    known = property.lower() if told else ""
    adapted = start.adapt(read_sites(start, assay, known))
    left, check = self_check(adapted, known, factor)
    left.insert(0, "mutant", [format_variant(one) for one in variants])
    left.insert(1, "measured", scores)
    measured = source.told if source else _NOTHING.copy()
    said += _warnings(source, left, check, adapted, property)
    parameters = {"model": model, "direction": direction, "property": property, **columns}
    return Ranking(
        sequence,
        name or own_name,
        known,
        direction,
        measured,
        check,
        left,
        tuple(said),
        MODEL,
        parameters | {"encoder": encoder, "drop": list(drop)},
        about,
        adapted,
        factor,
        source,
    )


_NOTHING = pd.DataFrame(columns=["mutant", "score", "sd", "n", "used", "why"]).astype(
    {"score": float, "sd": float, "n": int, "used": bool}
)


def load_ranking(folder: str | Path, *, encoder: str = "") -> Ranking:
    """The model that `Ranking.save` kept; a DataError if its files or the start have changed."""
    folder = Path(folder)
    try:
        kept = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        asked = {key: kept["parameters"][key] for key in _ASKED}
        expected = kept["model"], kept["wild_type"]["sha256"], kept["measured_sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        told = "this is no folder with a model"
        raise DataError(told, "give one that mutmeta adapt wrote", file=folder) from None
    table = folder / "measurements.csv"
    asked["encoder"] = encoder or asked["encoder"]
    found = fit(folder / "wild_type.fasta", table if table.exists() else None, **asked)
    now = found.record()
    if expected != (now["model"], now["wild_type"]["sha256"], now["measured_sha256"]):
        told = "the model, the wild type or the measurements are not what they were"
        raise DataError(told, "adapt anew", file=folder)
    return found


_ASKED = ("model", "encoder", "direction", "property", "mutant_column", "score_column", "drop")


def _load(model: str, encoder: str) -> tuple[Start, dict[str, str]]:
    """A start that ranks on sites, and what a record says of it."""
    if Path(model).suffix == ".safetensors":
        start = load_start(model, encoder=encoder or None, strict=False, device="cpu")
        file = Path(model)
    else:
        given = {"encoder": encoder or None, "strict": False} if PRETRAINED[model] else {}
        if encoder and not given:
            raise DataError(f"'{model}' reads without an encoder", "leave encoder out")
        start = load_pretrained(model, device="cpu", **given)
        file = Path(__file__).parents[1] / "pretrained" / f"{model}.safetensors"
    if start.sites is None or start.algorithm != "ranker":
        raise DataError("the start is no ranker on sites", "train one with --algorithm ranker")
    return start, {"name": file.stem, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}


def _posterior(adapted: Adapted, variants: Sequence[Variant], known: str) -> np.ndarray:
    """Means and deviations of new measurements ``(2, n)``, in the units of the assay."""
    whole = adapted.assay
    asked = Assay(
        "asked", "asked", whole.property, whole.wild_type, variants, np.zeros(len(variants))
    )
    read, model = read_sites(adapted.start, asked, known).tokens, adapted.predictor
    rows = read.rows(np.arange(len(read)))
    with torch.no_grad():
        found = [model.posterior(one, model.latent(one, rows), True) for one in adapted.networks]
    means, spreads = ([part.numpy() for part in parts] for parts in zip(*found, strict=True))
    scale = adapted.label_scale
    return np.stack([scale.to_scores(np.mean(means, axis=0)), scale.scale * spread(means, spreads)])


def spread_out(hopes: np.ndarray, places: Sequence[set[int]], n: int) -> np.ndarray:
    """The ``n`` rows of the highest ``hopes``, no place twice as long as there are others.

    >>> spread_out(np.array([3.0, 2.0, 1.0]), [{4}, {4}, {7}], 2)
    array([0, 2])
    """
    order, taken, later, used = np.argsort(-hopes, kind="stable"), [], [], set()
    for row in order:
        if len(taken) == n:
            break
        (later if used & places[row] else taken).append(row)
        used |= places[row]
    taken = {*taken, *later[: n - len(taken)]}
    return np.array([row for row in order if row in taken], dtype=int)


def probability_top(mean: np.ndarray, std: np.ndarray, share: float = 0.1) -> np.ndarray:
    """Probabilities ``(n,)`` of passing the mark that a ``share`` of the candidates should pass.

    >>> probability_top(np.array([0.0, 9.0, 0.0, 0.0]), np.ones(4), 0.25).round(2)
    array([0., 1., 0., 0.])
    """
    mean, std = torch.from_numpy(np.asarray(mean)), torch.from_numpy(np.asarray(std))
    low, high = (mean - 9 * std).min(), (mean + 9 * std).max()
    for _ in range(60):
        middle = (low + high) / 2
        passed = torch.special.ndtr((mean - middle) / std)
        low, high = (middle, high) if passed.mean() > share else (low, middle)
    return passed.numpy()


def nearest(variants: Sequence[Variant], measured: Sequence[Variant]) -> list[str]:
    """For each variant the measured one that is nearest along the chain, empty where none is.

    The distance is the mean, over the variant's substitutions, of that to the nearest position of
    the other; of several the one that shares a substitution, then the first measured.

    >>> nearest([parse_variant("A4G"), parse_variant("L9V")], [parse_variant("A4V:K7R")])
    ['A4V:K7R', 'A4V:K7R']
    """
    if not measured:
        return [""] * len(variants)
    names, far = [format_variant(one) for one in measured], 10**9
    known = np.full((len(measured), max(1, *map(len, measured))), far)
    for row, variant in enumerate(measured):
        known[row, : len(variant)] = [one.position for one in variant]
    places = sorted({one.position for variant in variants for one in variant})
    away = {place: np.abs(known - place).min(axis=1) for place in places}  # (n_measured,) each
    holders: dict[Any, list[int]] = {}
    for row, variant in enumerate(measured):
        for one in variant:
            holders.setdefault(one, []).append(row)
    found = []
    for variant in variants:
        distance = np.mean([away[one.position] for one in variant] or [known.min(axis=1)], axis=0)
        for one in variant:
            distance[holders.get(one, [])] -= 1e-3
        found.append(names[int(np.argmin(distance))])
    return found


def _warnings(
    source: Measurements | None,
    left: pd.DataFrame,
    check: pd.DataFrame,
    adapted: Adapted,
    property: str,
) -> list[str]:
    """What the user should know before trusting the list, in words."""
    said, n, scores = [], len(left), left["measured"]
    start, known = adapted.start, property.lower() in PROPERTIES
    if not n:
        said.append(
            "nothing was measured: the order is what other proteins taught, predictions have no "
            "unit, and higher is taken to be better"
        )
    elif n < FEW:
        chance = min(1.0, 1.96 / math.sqrt(max(1, n - 1)))
        said.append(
            f"{n} measured variant{'s are' if n > 1 else ' is'} too few to judge the model here: "
            f"a correlation up to {chance:.2f} can be chance"
        )
    if n > 1 and not adapted.label_scale.identified:
        said.append("all measurements are equal, so that there is nothing to learn from them")
    elif n > 3 and scores.value_counts().iloc[0] > 0.7 * n:
        said.append("most measurements are equal: few of them say what is better")
    if source is not None and n > 2 and adapted.label_scale.identified:
        noise = source.told["sd"].median()
        if noise > scores.std():
            said.append("repeats differ as much as variants do: the labels are mostly noise")
        if source.wild_type is not None:
            away = (source.wild_type - scores.mean()) / scores.std()
            if abs(away) > 3:
                said.append(
                    f"the wild type ({source.wild_type:.4g}) lies {abs(away):.1f} deviations off "
                    "your variants: was it measured alike?"
                )
    several = sum(len(variant) > 1 for variant in adapted.assay.variants)
    if several:
        said.append(
            f"{several} of the measured variants have several substitutions; the model learned "
            "from single ones and adds their effects up"
        )
    listed = read_list("benchmark").set_index("id")["property"]
    met = listed[listed.index.isin(start.origin.get("data", {}))].value_counts()
    if property and not known:
        told = ", ".join(PROPERTIES)
        said.append(f"'{property}' is no property that the model learned from ({told})")
    elif known and (count := met.get(property.lower(), 0)) < FEW:
        seen = f"{count} assay{'' if count == 1 else 's'}"
        said.append(f"of {property.lower()} the model has met only {seen}: rely on your labels")
    if (far := unlikeness(start, adapted.assay.wild_type)) > UNLIKE:
        said.append(
            "the protein is unlike all that the model learned from: its mean residue lies "
            f"{far:.2f} deviations off theirs, and none of them farther than {UNLIKE}"
        )
    by = check.set_index("method")["spearman"]
    for control in (ZERO, ONEHOT):
        if n >= FEW and by[control] >= by[MODEL] + AHEAD:
            said.append(
                f"on your labels, each predicted from the others, '{control}' orders better than "
                f"the model: {by[control]:.2f} against {by[MODEL]:.2f}; the model ranks all the "
                "same, since on assays measured whole such leads did not last"
            )
    return [*said, *(source.notes if source else ())]


def unlikeness(start: Start, wild_type: str) -> float:
    """How far a protein's mean residue lies from that of meta-training, in deviations of sites.

    Root mean square over the numbers of `models.sites.neighbourhood`, but for the last four, which
    are of places.
    """
    trunk, numbers = start.predictor.encoder.module, neighbourhood(wild_type)[:, :-4]
    known = numbers.shape[1]
    location, scale = (part.numpy()[:known] for part in (trunk.location, trunk.scale))
    return float(np.sqrt(np.mean(((numbers.mean(axis=0) - location) / scale) ** 2)))
