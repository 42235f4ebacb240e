"""Train the encoder ``small``: `python scripts/train_small.py DATA small.safetensors`.

The transformer of `models.tiny` learns from the singles of the list ``benchmark``, as ranks made
normal: first, from windows of wild types, what each of twenty residues would do at every site, many
labels at once; then, from texts in every encoding, the paper's in half of the draws, the scores of
single variants, of which a text marks several; by a linear head each, which is thrown away. Left
out are proteins like the bundled ones, so that what is tried on these is tried on proteins that the
encoder has not seen, and a fifth of all other clusters, on which linear heads over it and over
random weights are then fitted and tested.
"""

import argparse
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from mutmeta_lib.data.assays import Assay
from mutmeta_lib.data.folders import cap_assay, read_data_dir, read_listed
from mutmeta_lib.data.proteins import cluster_proteins
from mutmeta_lib.data.splits import protein_folds
from mutmeta_lib.data.variants import AMINO_ACIDS, Substitution, Variant
from mutmeta_lib.learn.baselines import Ridge
from mutmeta_lib.models.embed import read_with
from mutmeta_lib.models.encoder import Encoder, small_encoder, tiny_encoder
from mutmeta_lib.models.predictor import Predictor
from mutmeta_lib.records import store
from mutmeta_lib.study.estimates import contrast, estimate
from mutmeta_lib.study.evaluate import evaluate
from mutmeta_lib.tasks.batches import concatenate
from mutmeta_lib.tasks.encodings import ENCODINGS, encode_variants
from mutmeta_lib.tasks.metrics import spearman
from mutmeta_lib.tasks.tasks import with_normal_scores

SIZES = {"width": 64, "layers": 2, "heads": 4, "max_tokens": 64}
SETTINGS = {"first": 150, "steps": 1000, "windows": 32, "hidden": 0.2, "assays": 8, "rows": 6}
SETTINGS |= {"sites": (1, 4, 8), "radius": 12, "lr": 3e-3, "weight_decay": 0.03, "dropout": 0.1}
"""``first`` of the steps read ``windows`` of wild types, with a share of residues ``hidden``; the
others ``rows`` texts of each of some assays, with so many ``sites`` within a ``radius``."""
COLUMNS = ["shots", "encoder", "mean", "low", "high", "n_assays", "n_units"]


def sides(data_dir: str) -> tuple[list[Assay], list[Assay]]:
    """The assays to train on, and those to test on, of which 200 variants are enough."""
    demo, listed = read_data_dir(), read_listed(data_dir, "benchmark")
    clusters = cluster_proteins([*demo, *listed])
    known = {clusters[assay.wild_type] for assay in demo}
    unlike = [assay for assay in listed if clusters[assay.wild_type] not in known]
    held = protein_folds(unlike, 5)[0].test
    seen = [assay for assay in unlike if assay.id not in held]
    return seen, [cap_assay(assay, 200) for assay in unlike if assay.id in held]


def table(assay: Assay) -> Tensor:
    """The scores of an assay's singles, ``(residues, 20)``; NaN where there is none."""
    found = torch.full((len(assay.wild_type), len(AMINO_ACIDS)), torch.nan)
    for variant, score in zip(assay.variants, assay.scores, strict=True):
        found[variant[0].position - 1, letter(variant[0])] = float(score)
    return found


def letter(one: Substitution) -> int:
    """The column of a mutant."""
    return AMINO_ACIDS.index(one.mutant)


def train(assays: Sequence[Assay], encoder: Encoder) -> None:
    """Let the encoder learn in place."""
    steps, lr, rate = SETTINGS["steps"], SETTINGS["lr"], SETTINGS["dropout"]
    words, length, width = encoder.vocabulary, encoder.max_tokens, encoder.width
    labelled, proteins = [with_normal_scores(assay) for assay in assays], defaultdict(list)
    for assay in labelled:
        proteins[assay.protein].append(assay)
    tables = {assay.id: table(assay) for assay in labelled}
    rng, families = np.random.default_rng(0), [proteins[name] for name in sorted(proteins)]
    torch.manual_seed(0)
    score, every = nn.Linear(width, 1), nn.Linear(width, len(AMINO_ACIDS))
    weights = [*encoder.module.parameters(), *score.parameters(), *every.parameters()]
    with torch.no_grad():
        for one in (*weights[-4:], encoder.module.embedding.weight):
            one.mul_(0.1 if one.shape[0] < len(words) else 0.5)
    optimiser = torch.optim.AdamW(weights, lr, weight_decay=SETTINGS["weight_decay"])
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, lr, steps, pct_start=0.1)

    def of_wild_types() -> Tensor:
        chosen = draw(SETTINGS["windows"])
        ids = torch.full((len(chosen), length), words.id(words.pad))
        wanted = torch.full((len(chosen), length, len(AMINO_ACIDS)), torch.nan)
        for row, assay in enumerate(chosen):
            known = tables[assay.id].isfinite().any(dim=1).nonzero().flatten()
            start = int(known[rng.integers(len(known))]) - int(rng.integers(length - 1))
            start = max(0, min(start, len(assay.wild_type) - length + 1))
            part = assay.wild_type[start : start + length - 1]
            ids[row, : len(part) + 1] = torch.tensor((*words.frame[0], *words.residue_ids(part)))
            wanted[row, 1 : len(part) + 1] = tables[assay.id][start : start + length - 1]
        real, unseen = ids != words.id(words.pad), torch.rand(ids.shape) < SETTINGS["hidden"]
        states = encoder.module(ids.masked_fill(real & unseen, words.id(words.unknown)), real)
        known, missed = wanted.isfinite(), every(nn.functional.dropout(states, rate)) - wanted
        squares = torch.where(known, missed, 0.0) ** 2
        return (squares.sum(dim=(1, 2)) / known.sum(dim=(1, 2))).mean()

    def of_variants() -> Tensor:
        texts, wanted = [], []
        for assay in draw(SETTINGS["assays"]):
            name = (*ENCODINGS, *["separator"] * 3)[rng.integers(len(ENCODINGS) + 3)]
            variants, number = [], SETTINGS["sites"][rng.integers(len(SETTINGS["sites"]))]
            for _ in range(SETTINGS["rows"]):
                variants.append(several(assay, number))
                wanted += [tables[assay.id][one.position - 1, letter(one)] for one in variants[-1]]
            texts.append(encode_variants(name, assay.wild_type, variants, words, length))
        batch = concatenate(texts)
        states = encoder.module(batch.token_ids, batch.mask)[batch.sites]
        found = score(nn.functional.dropout(states, rate)).squeeze(-1)
        return ((found - torch.stack(wanted)) ** 2).mean()

    def several(assay: Assay, number: int) -> Variant:
        known = tables[assay.id].isfinite()
        sites = known.any(dim=1).nonzero().flatten().numpy()
        near = sites[np.abs(sites - rng.choice(sites)) <= SETTINGS["radius"]]
        chosen = np.sort(rng.choice(near, min(number, len(near)), replace=False)).tolist()
        mutants = [rng.choice(known[site].nonzero().flatten().numpy()) for site in chosen]
        return tuple(
            Substitution(site + 1, assay.wild_type[site], AMINO_ACIDS[mutant])
            for site, mutant in zip(chosen, mutants, strict=True)
        )

    def draw(n: int) -> list[Assay]:
        some = [families[place] for place in rng.integers(len(families), size=n)]
        return [family[rng.integers(len(family))] for family in some]

    for step in range(steps):
        first = step < SETTINGS["first"]
        loss = of_wild_types() if first else of_variants()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        schedule.step()
        if (step + 1) % 100 == 0:
            print(f"{step + 1} of {steps} steps, loss {float(loss):.3f}", flush=True)


def scores(assays: Sequence[Assay], encoders: Sequence[Encoder]) -> pd.DataFrame:
    """Spearman correlations of linear heads on frozen vectors, and the first encoder's lead.

    Without labels the head is ridge regression on the other assays of three folds, with labels on
    these alone (five draws).
    """
    clusters, rows = cluster_proteins(assays), []
    for encoder in encoders:
        vectors = read_with(Predictor(encoder), assays, "separator", None)
        for fold in protein_folds(assays, 3):
            known = [*fold.train, *fold.validation]
            x = torch.cat([vectors.standardised[name] for name in known])
            y = np.concatenate([vectors.training[name].assay.scores for name in known])
            wanted, shrink = torch.from_numpy(y).float(), len(x) / 100 * torch.eye(encoder.width)
            head = torch.linalg.solve(x.T @ x + shrink, x.T @ wanted)
            for name in fold.test:
                told = {"assay": name, "encoder": encoder.name, "shots": 0, "seed": 0}
                guess = (vectors.standardised[name] @ head).numpy()
                found = spearman(guess, vectors.assays[name].assay.scores)
                rows.append(told | {"spearman": found})
        ridge = {"ridge": Ridge("ridge", vectors.features)}
        how = {"shots": (10, 40), "seeds": range(5), "pool": 40, "max_query": 160}
        made = evaluate(ridge, list(vectors.assays.values()), **how)
        rows += made.assign(encoder=encoder.name).to_dict("records")
    table, of = pd.DataFrame(rows), {assay.id: clusters[assay.wild_type] for assay in assays}
    table["cluster"] = table["assay"].map(of)
    each = estimate(table, "spearman", by=["shots", "encoder"])
    less = contrast(table, "spearman", "encoder", encoders[0].name)
    return pd.concat([each, less.assign(encoder="difference")])


def main() -> None:
    """Train, write, test, and write again with the scores."""
    asked = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    asked.add_argument("data_dir", help="a folder in the layout of the data card")
    asked.add_argument("output", type=Path)
    given = asked.parse_args()
    assays, held = sides(given.data_dir)
    encoder = tiny_encoder(**SIZES)
    train(assays, encoder)
    provenance = {"encoder": f"small transformer, trained on {len(assays)} mutation assays"}
    about = {"sizes": SIZES, "settings": SETTINGS, "provenance": provenance}
    about["held_out"] = [assay.id for assay in held]
    about["data"] = {assay.id: assay.sha256 for assay in assays}
    tensors = encoder.module.state_dict()
    store.save(given.output, tensors, about)
    found = scores(held, (small_encoder(given.output), tiny_encoder(**SIZES)))[COLUMNS].round(3)
    print(found.to_string(index=False))
    store.save(given.output, tensors, about | {"scores": found.to_dict("records")})


if __name__ == "__main__":
    main()
