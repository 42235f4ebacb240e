"""What a user's own labels say of a ranking: each left out in turn, and a learning curve."""

import math

import numpy as np
import pandas as pd
import torch

from mutmeta_lib.data.assays import Assay
from mutmeta_lib.learn.baselines import RIDGE_PENALTIES, onehot_features
from mutmeta_lib.learn.ranker import spread
from mutmeta_lib.learn.start import Adapted, Start
from mutmeta_lib.models.sites import site_assay
from mutmeta_lib.tasks.tasks import EncodedAssay, Examples, LabelScale, towards_normal

CENTRAL = 1.6448536
"""Deviations to either side that hold 90 % of a normal distribution."""
FEW, MODEL, ZERO, ONEHOT = 10, "model", "without labels", "one-hot ridge"
_SIZES, _HELD = (0, 5, 10, 20, 40, 80, 160), 5


def read_sites(start: Start, assay: Assay, known: str) -> EncodedAssay:
    """An assay as the start reads it; a property that it does not know is not told."""
    return site_assay(assay, start.encoding, start.sites(assay.wild_type), told=bool(known))


def self_check(adapted: Adapted, known: str, factor: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Each measured variant predicted from the others: left one out, and the check of three.

    Closed form: with P the inverse of the covariance and r the labels less their prior mean, the
    posterior of a label given the others has mean y - (P r) / diag(P) and variance 1 / diag(P)
    (Rasmussen and Williams 2006, 5.4.2). Labels are scaled by the others each time, so that this
    is what adapting anew without the variant gives.
    """
    assay, model, n = adapted.assay, adapted.predictor, len(adapted.assay)
    scores = assay.scores
    scales = [LabelScale.fit(np.delete(scores, i)) for i in range(n)]
    location, scale = (
        np.array([getattr(s, part) for s in scales]) for part in ("location", "scale")
    )
    read = read_sites(adapted.start, assay, known).tokens.rows(np.arange(n))
    means, spreads, priors, slopes = [], [], [], []
    enough = n > 2 and adapted.label_scale.identified
    labels = (scores[:, None] - location) / scale  # column i: scaled and moved without label i
    for i, others in enumerate(~np.eye(n, dtype=bool) if enough else ()):
        labels[others, i] = towards_normal(torch.from_numpy(labels[others, i]))
    with torch.no_grad():
        for params in adapted.networks if enough else ():
            prior = model.score(params, model.latent(params, read)).double().numpy()
            slope = float(params["kernel.slope"])
            precision = torch.cholesky_inverse(params["support.lower"].double()).numpy()
            missed = precision @ (labels - slope * prior[:, None])
            own = np.diag(precision)
            means.append(np.diag(labels) - np.diag(missed) / own)
            spreads.append(own**-0.5)
            priors.append(prior)
            slopes.append(slope * prior)
    made = dict.fromkeys((MODEL, ZERO, ONEHOT), np.full(n, np.nan))
    ranks, std = dict(made), np.full(n, np.nan)
    if enough:
        made[MODEL] = location + scale * np.mean(means, axis=0)
        made[ZERO] = location + scale * np.mean(slopes, axis=0)
        made[ONEHOT] = ridge_left_out(adapted, scores)
        # The others' mean falls where a label rises: ranks are taken without it.
        ranks = {name: np.round((one - location) / scale, 9) for name, one in made.items()}
        ranks[ZERO] = np.mean(priors, axis=0)
        std = abs(factor) * scale * spread(means, spreads)
    left = pd.DataFrame({"predicted": factor * made[MODEL], "std": std})
    left["lower"], left["upper"] = (left["predicted"] + side * CENTRAL * std for side in (-1, 1))
    check = [
        {
            "method": name,
            "spearman": _spearman(ranks[name], scores) if enough else math.nan,
            "error": abs(factor) * np.sqrt(np.mean((one - scores) ** 2)) if enough else math.nan,
            "n": n,
        }
        for name, one in made.items()
    ]
    return left, pd.DataFrame(check)


def _spearman(predicted: np.ndarray, measured: np.ndarray) -> float:
    """As `tasks.metrics.spearman`, which loads scipy.stats: a fifth of the time of a ranking."""
    both = (pd.Series(one).rank().round(9) for one in (predicted, measured))
    found = next(both).corr(next(both))
    return 0.0 if math.isnan(found) else float(found)


def ridge_left_out(adapted: Adapted, scores: np.ndarray) -> np.ndarray:
    """Predictions ``(n,)`` of one-hot ridge regression from the others, in closed form.

    Its penalty is the best on these very predictions, which favours it a little.
    """
    n = len(scores)
    read = EncodedAssay(adapted.assay, "", None)
    features = onehot_features(Examples(read, np.arange(n), torch.empty(0)))
    centre = np.eye(n) - 1 / n
    values, vectors = np.linalg.eigh(centre @ (features @ features.T).toarray() @ centre)
    found = []
    for penalty in RIDGE_PENALTIES:
        share = values.clip(0) / (values.clip(0) + penalty)
        hat = 1 / n + (vectors * share) @ vectors.T
        found.append(scores - (scores - hat @ scores) / (1 - np.diag(hat)))
    return min(found, key=lambda one: np.sum((one - scores) ** 2))


def learning_curve(adapted: Adapted, known: str, draws: int = 50) -> pd.DataFrame:
    """How well held-out labels are ranked, by how many of the others the model is given.

    A third of the labels, five at least, is held out in each of the ``draws``. Rows: ``labels``,
    and of Spearman's correlation with the ``held`` ones the ``mean``, and ``low``, ``high``: the
    middle 80 % of the draws. Empty below ten labels, or if they are equal.
    """
    scores, model = adapted.assay.scores, adapted.predictor
    n, held = len(scores), max(_HELD, len(scores) // 3)
    if n < FEW or not adapted.label_scale.identified:
        return pd.DataFrame(columns=["labels", "mean", "low", "high", "held"])
    sizes = sorted({n - held, *(size for size in _SIZES if size < n - held)})
    read = read_sites(adapted.start, adapted.assay, known).tokens.rows(np.arange(n))
    networks = []
    with torch.no_grad():
        for params in adapted.networks:
            score = model.score(params, model.latent(params, read)).double().numpy()
            lower = params["support.lower"].double()
            networks.append((score, float(params["kernel.slope"]), (lower @ lower.T).numpy()))
    rng, rows = np.random.default_rng(0), []
    for order in (rng.permutation(n) for _ in range(draws)):
        test, pool = order[:held], order[held:]
        for own in (pool[:size] for size in sizes):
            guess = np.mean([_given(own, test, scores, *one) for one in networks], axis=0)
            rows.append((len(own), _spearman(guess.round(9), scores[test])))
    found = pd.DataFrame(rows, columns=["labels", "spearman"]).groupby("labels")["spearman"]
    ends = {"low": found.quantile(0.1), "high": found.quantile(0.9)}
    return pd.DataFrame({"mean": found.mean(), **ends, "held": held}).reset_index()


def _given(
    own: np.ndarray,
    test: np.ndarray,
    scores: np.ndarray,
    score: np.ndarray,
    slope: float,
    covariance: np.ndarray,
) -> np.ndarray:
    """What a network whose process is known says of the ``test`` rows, given its ``own``."""
    scale = LabelScale.fit(scores[own])
    if not scale.identified:
        return score[test]
    prior = slope * score
    labels = torch.from_numpy((scores[own] - scale.location) / scale.scale)
    labels = towards_normal(labels).numpy()
    weights = np.linalg.solve(covariance[np.ix_(own, own)], labels - prior[own])
    return prior[test] + covariance[np.ix_(test, own)] @ weights
