"""A study: which assays, split how, read how, learned by which methods, at which shots."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import skew

from mutmeta_lib.data.assays import Assay
from mutmeta_lib.data.folders import DEMO, cap_assay, read_data_dir, read_list, read_listed
from mutmeta_lib.data.proteins import cluster_proteins
from mutmeta_lib.data.splits import Split, protein_folds
from mutmeta_lib.errors import DataError
from mutmeta_lib.learn.methods import METHODS
from mutmeta_lib.models.encoder import Encoder
from mutmeta_lib.models.sites import READS
from mutmeta_lib.records.record import recorded_parameters
from mutmeta_lib.seeds import stable_seed

REGIMES = ("proteins", "rotations", "properties", "related", "around", "variants", "sites")
"""Who is trained on, who chooses, who is tested.

- ``proteins``: folds of protein clusters; no test protein is in meta-training.
- ``rotations``: the same test folds; of the other clusters a share chooses, all others train.
  With a share of 0 nothing chooses, and every start is the last of its meta-training.
- ``properties``: one property is tested, and clusters that carry it are out of meta-training.
- ``related``: as ``proteins``, but of clusters with several test assays one is tested and the
  others move to meta-training: what differs is that another assay of the protein has been seen.
- ``around``: the assays ``test_ids`` are tested, meta-training has the other clusters.
- ``variants``, ``sites``: nothing is meta-trained; a share of each assay's variants, or of its
  sites with all their variants, is predicted from the rest (by ``joint`` from that of all assays,
  in ``meta_steps`` Adam steps of ``support`` rows of ``tasks_per_step`` assays each).
"""

DRAWN = ("rotations", "around", "properties")
"""The regimes in which a share of the clusters that are not tested chooses."""
HOLD_OUTS = ("variants", "sites")


@dataclass(frozen=True)
class Read:
    """How variants become what a method reads.

    ``depth`` says what learns: ``head``, on standardised vectors of the frozen encoder; ``raw
    head``, on vectors as they are; ``last-<k>`` layers with the head; ``all``. ``swap``: what test
    assays alone are read through (`models.swap`). With a read of sites (`models.sites.READS`) as
    ``encoding``, a trunk learns on the sites' numbers, pooling and depth have no meaning, and the
    one swap is ``untold``: the property of test assays is not told.
    """

    encoder: str = "small"
    encoding: str = "separator"
    pooling: str = "sites"
    depth: str = "head"
    max_tokens: int | None = None
    swap: str = "same"


def grid(**values: Any) -> tuple[Read, ...]:
    """All combinations of the values; a text or a number stands for itself.

    >>> [read.encoding for read in grid(encoder="small", encoding=["separator", "mutant"])]
    ['separator', 'mutant']
    """
    several = [v if isinstance(v, list | tuple) else [v] for v in values.values()]
    return tuple(Read(**dict(zip(values, one, strict=True))) for one in product(*several))


@dataclass(frozen=True)
class Study:
    """One question: everything that its rows depend on, and nothing else.

    Lists may be given for tuples, so that parameters of a notebook pass through.

    Attributes:
        data_dir: ``demo`` or a folder in the layout of the data card.
        selection: a list of assays (not used for ``demo``), of these ``roles`` alone if given.
        ids: assays by name; all when empty.
        per_protein: at most so many assays per protein and property; 0 is all.
        cap: variants per assay at most, drawn once; 0 is all, or what the list says.
        longest, fewest: leave out longer wild types and smaller assays; 0 keeps all.
        regime: one of `REGIMES`, with its ``n_folds``, ``folds`` (numbers from 0, all when empty),
            held-out ``properties`` (all when empty), ``test_ids``, and ``share`` of clusters that
            choose, or of variants that are held out.
        train_most: meta-training assays at most, drawn once per case; 0 is all.
        seeds, seed: how many, and the first of them.
        reads: see `Read` and `grid`.
        labels: what meta-training sees: ``normal_scores`` or ``measured``.
        methods: names of `METHODS`; those of ``by_error`` are tested again as ``<name>_mse``, with
            the rate of the lowest validation error, at ``decided_at`` labels.
        shots: numbers of labels; none trains only.
        draws: supports per assay, seed and number of labels.
        decided_at: labels at which rates are chosen, a number or several (`Study.decides`).
        pool: variants reserved for supports (largest of shots when 0); smaller assays reserve less
            (`evaluate.support_pool`), and are not tested beyond.
        max_query: query variants per task; all when 0.
        meta_steps, solved_steps: outer steps of starts, and of those whose head is solved.
        inner_lr, meta_lr: rates of meta-training; with ``outer_rates``, pairs of them, every
            meta-trained start takes the pair with the lowest validation loss.
        schedule, weight_decay, dropout: of meta-training, as `learn.MetaTraining` has them.
        members: networks of a start that is several.
        adapt_steps: gradient steps on a test task; of several every gradient method chooses one
            with its rate, except where nothing is chosen, which takes the first.
        tuning_assays: validation assays that rates are chosen on; 0 is all.

    """

    data_dir: str = DEMO
    selection: str = ""
    roles: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    per_protein: int = 0
    cap: int = 0
    longest: int = 0
    fewest: int = 0
    regime: str = "proteins"
    n_folds: int = 4
    folds: tuple[int, ...] = ()
    properties: tuple[str, ...] = ()
    test_ids: tuple[str, ...] = ()
    share: float = 0.2
    train_most: int = 0
    seeds: int = 5
    seed: int = 0
    reads: tuple[Read, ...] = (Read(),)
    labels: str = "normal_scores"
    methods: tuple[str, ...] = ("maml", "multitask", "finetune", "ridge")
    by_error: tuple[str, ...] = ()
    shots: tuple[int, ...] = (0, 10)
    draws: int = 1
    decided_at: int | tuple[int, ...] = 10
    pool: int = 0
    max_query: int = 0
    meta_steps: int = 60
    solved_steps: int = 40
    tasks_per_step: int = 16
    support: int = 10
    query: int = 20
    inner_steps: int = 5
    inner_lr: float = 0.03
    first_order: bool = False
    meta_lr: float = 5e-4
    outer_rates: tuple[tuple[float, float], ...] = ()
    validate_every: int = 10
    validation_tasks: int = 32
    schedule: str = "constant"
    weight_decay: float = 0.0
    dropout: bool = False
    members: int = 1
    adapt_steps: int | tuple[int, ...] = 10
    epochs: int = 5
    tuning_assays: int = 0

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, list | tuple):
                value = tuple(tuple(v) if isinstance(v, list) else v for v in value)
                object.__setattr__(self, field.name, value)
        if self.regime not in REGIMES:
            raise ValueError(f"unknown regime {self.regime!r}; choose from {REGIMES}")
        if unknown := sorted(set(self.methods) - set(METHODS)):
            raise ValueError(f"unknown methods {unknown}; choose from {sorted(METHODS)}")
        if not self.reads:
            raise DataError("the study reads nothing", "name some encoder and encoding in reads")
        if not (self.decided and self.steps):
            raise DataError("nothing to choose rates by", "give decided_at and adapt_steps numbers")
        texts = [read.encoding for read in self.reads if read.encoding not in READS]
        ranked = [name for name in self.methods if METHODS[name].start == "ranker"]
        if texts and ranked:
            told = f"'{ranked[0]}' learns on sites, and '{texts[0]}' writes texts"
            raise DataError(told, f"read with one of {', '.join(READS)}")
        if self.regime in DRAWN and not self.share and len(self.outer_rates) > 1:
            told = f"a share of 0 leaves nothing to choose between {len(self.outer_rates)} pairs by"
            raise DataError(told, "give one pair in outer_rates, or a share")
        if "joint" in self.methods and self.regime not in HOLD_OUTS:
            raise DataError("'joint' is for the regimes that hold out variants", "leave it out")
        if self.regime == "around" and not self.test_ids:
            raise DataError("the regime 'around' tests no assay", "name some in test_ids")

    @property
    def reserved(self) -> int:
        """Variants of an assay that are reserved for supports."""
        return self.pool or max(self.shots, default=0)

    @property
    def of_data(self) -> "Study":
        """The usual study of the same assays and labels: what reading them depends on."""
        told = "data_dir selection roles ids per_protein cap longest fewest test_ids labels"
        return Study(**{name: getattr(self, name) for name in told.split()})

    @property
    def decided(self) -> tuple[int, ...]:
        """The numbers of ``decided_at``, in order."""
        return tuple(sorted(_several(self.decided_at)))

    @property
    def steps(self) -> tuple[int, ...]:
        """The numbers of ``adapt_steps``."""
        return _several(self.adapt_steps)

    def decides(self, labels: int) -> int:
        """The number of ``decided_at`` whose logarithm is nearest to that of so many labels.

        >>> study = Study(decided_at=(10, 100))
        >>> [study.decides(labels) for labels in (0, 10, 31, 32, 128)]
        [10, 10, 10, 100, 100]
        """
        return min(self.decided, key=lambda k: abs(np.log(k / max(labels, 1))))

    def parameters(self) -> dict[str, Any]:
        """The study as plain values, for a record; folders keep their last part alone."""
        reads = [recorded_parameters(vars(read)) for read in self.reads]
        return recorded_parameters(vars(self) | {"reads": reads})


def _several(value: int | tuple[int, ...]) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value,)


def load_assays(data_dir: str, *, ids: Sequence[str] = (), per_protein: int = 0) -> list[Assay]:
    """Read assays in order of id; ``per_protein`` > 0 keeps so many per protein and property."""
    kept: dict[tuple[str, str], list[Assay]] = {}
    for assay in sorted(read_data_dir(data_dir, ids=ids or None), key=lambda assay: assay.id):
        kept.setdefault((assay.protein, assay.property), []).append(assay)
    some = [assay for group in kept.values() for assay in group[: per_protein or None]]
    return sorted(some, key=lambda assay: assay.id)


def read_assays(study: Study) -> tuple[list[Assay], dict[str, str]]:
    """The assays of a study, and the role of each: that of the list, or its property."""
    if study.selection and study.data_dir != DEMO:
        how = {"cap": study.cap or None, "roles": study.roles or None}
        assays = read_listed(study.data_dir, study.selection, **how)
        roles = read_list(study.selection).set_index("id")["role"].to_dict()
    else:
        assays = load_assays(study.data_dir, ids=study.ids, per_protein=study.per_protein)
        assays = [cap_assay(assay, study.cap) if study.cap else assay for assay in assays]
        roles = {assay.id: assay.property for assay in assays}
    longest = study.longest or np.inf
    assays = [a for a in assays if len(a.wild_type) <= longest and len(a) >= study.fewest]
    if not assays:
        raise DataError("no assay is left", "allow longer wild types, or name another list")
    if missing := sorted(set(study.test_ids) - {assay.id for assay in assays}):
        raise DataError(f"there is no assay '{missing[0]}' to test", "see the manifest of the data")
    return assays, {assay.id: roles[assay.id] for assay in assays}


def describe_assays(assays: Sequence[Assay], roles: Mapping[str, str]) -> pd.DataFrame:
    """One row per assay: property, role, cluster, counts, and the shape of its labels.

    ``sites`` counts mutated positions, ``ties`` is the share of the most frequent score,
    ``several`` that of variants with several mutations.
    """
    clusters = cluster_proteins(assays)
    return pd.DataFrame(
        {
            "assay": assay.id,
            "property": assay.property,
            "role": roles[assay.id],
            "cluster": clusters[assay.wild_type],
            "variants": len(assay),
            "length": len(assay.wild_type),
            "sites": len({change.position for variant in assay.variants for change in variant}),
            "several": float(np.mean([len(variant) > 1 for variant in assay.variants])),
            "skewness": float(skew(assay.scores)),
            "ties": np.unique(assay.scores, return_counts=True)[1].max() / len(assay),
        }
        for assay in assays
    )


def describe_encoder(encoder: Encoder) -> dict[str, Any]:
    """What a record says about an encoder."""
    return {"name": encoder.name, "sha256": encoder.sha256, "provenance": encoder.provenance}


@dataclass(frozen=True)
class Case:
    """One split of a study for one seed; ``name`` is the fold, or what is held out."""

    regime: str
    name: str
    seed: int
    split: Split


def draw_cases(study: Study, assays: Sequence[Assay]) -> list[Case]:
    """All cases of a study, in order of seed; folds do not depend on the seed."""
    cases = _whole_cases(study, assays)
    return [_with_fewer(case, study.train_most) for case in cases] if study.train_most else cases


def _with_fewer(case: Case, most: int) -> Case:
    """The case with a draw of its meta-training assays; growing draws are nested."""
    rng = np.random.default_rng(stable_seed("fewer", case.name, case.seed))
    train = rng.permutation(sorted(case.split.train))[:most]
    return replace(case, split=replace(case.split, train=tuple(sorted(train.tolist()))))


def _whole_cases(study: Study, assays: Sequence[Assay]) -> list[Case]:
    regime, seeds = study.regime, range(study.seed, study.seed + study.seeds)
    if regime in HOLD_OUTS:
        everything = Split((), (), tuple(sorted(assay.id for assay in assays)))
        return [Case(regime, regime, seed, everything) for seed in seeds]
    clusters = cluster_proteins(assays)
    of = {assay.id: clusters[assay.wild_type] for assay in assays}
    if regime in ("around", "properties"):
        names = study.properties or sorted({assay.property for assay in assays})
        tests = {p: {a.id for a in assays if a.property == p} for p in names}
        salts = {name: ("held out", name) for name in names}
        if regime == "around":
            tests, salts = {"around": set(study.test_ids)}, {"around": ("split",)}
        return [
            Case(regime, name, seed, _draw(of, test, study.share, *salts[name], seed))
            for seed in seeds
            for name, test in tests.items()
        ]
    folds = enumerate(protein_folds(assays, study.n_folds))
    some = {f"fold {i + 1}": fold for i, fold in folds if not study.folds or i in study.folds}
    cases = [Case(regime, name, seed, fold) for seed in seeds for name, fold in some.items()]
    if regime == "rotations":
        share = study.share
        cases = [
            replace(case, split=_draw(of, set(case.split.test), share, case.name, case.seed))
            for case in cases
        ]
    if regime == "related":
        cases = [replace(case, split=_with_relatives(case.split, of, case.seed)) for case in cases]
    return [case for case in cases if case.split.test]


def _draw(of: Mapping[str, int], test: Collection[str], share: float, *seed: str | int) -> Split:
    """Test some assays; of the clusters that they do not touch, a share chooses."""
    taken = {of[name] for name in test}
    free = sorted(set(of.values()) - taken)
    if not test or len(free) < 2:
        told = f"testing {len(test)} assays leaves {len(free)} protein clusters to learn from"
        raise DataError(told, "give more assays, or test others")
    drawn = np.random.default_rng(stable_seed(*seed)).permutation(free)
    several = min(max(1, round(share * len(free))), len(free) - 1) if share else 0
    chooses = set(drawn[:several].tolist())
    rest = [name for name in sorted(of) if of[name] not in taken]
    sides = (tuple(n for n in rest if (of[n] in chooses) == side) for side in (False, True))
    return Split(*sides, tuple(sorted(test)))


def _with_relatives(fold: Split, of: Mapping[str, int], seed: int) -> Split:
    """One assay per cluster with several in the test group, in turns of the seed; others train."""
    groups: dict[int, list[str]] = {}
    for name in sorted(fold.test):
        groups.setdefault(of[name], []).append(name)
    several = [group for group in groups.values() if len(group) > 1]
    test = {group[seed % len(group)] for group in several}
    seen = {name for group in several for name in group} - test
    return Split(tuple(sorted({*fold.train, *seen})), fold.validation, tuple(sorted(test)))
