"""What comes with the package: it loads, ranks, and is what its card says."""

import re
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from cases import made_up_assay, write_esm

import mutmeta_lib as mm
from mutmeta_lib.data.assays import PROPERTIES
from mutmeta_lib.data.folders import DEMO, read_data_dir, read_list
from mutmeta_lib.errors import DataError
from mutmeta_lib.learn.baselines import Ridge, embedding_features, substitution_score
from mutmeta_lib.learn.start import PRETRAINED
from mutmeta_lib.records import store
from mutmeta_lib.records.record import read_record
from mutmeta_lib.study.benchmark import SHIPPED
from mutmeta_lib.study.study import load_assays
from mutmeta_lib.tasks.metrics import spearman
from mutmeta_lib.tasks.tasks import Examples

FOLDER = Path(mm.__file__).parent / "pretrained"
FILES = {path.stem: path for path in FOLDER.glob("*.safetensors")}
RECORD = FOLDER.parents[1] / "book/records/full/benchmark.json"
SCORED = {
    "spearman_unseen": "Spearman's correlation at sites without a label",
    "error_over_mean": "squared error over that of the labels' mean",
    "coverage": "share within the interval of 90 %",
}
CARDS = {path.stem: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.md")}


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Any of them; under ``esm2-8m`` lie random weights of its encoder's shape."""
    folder = str(write_esm(tmp_path_factory.mktemp("esm")))

    def loaded(name):
        if not PRETRAINED[name]:
            return mm.load_pretrained(name, device="cpu")
        with pytest.warns(UserWarning, match="trained on esm2 with sha256 .* not .* with"):
            return mm.load_pretrained(name, encoder=folder, strict=False, device="cpu")

    return loaded


def test_all_are_there_with_a_card_and_are_small():
    assert FILES.keys() == CARDS.keys() == PRETRAINED.keys() | {"small"}
    assert sum(path.stat().st_size for path in FILES.values()) < 5e6


@pytest.mark.parametrize("name", PRETRAINED)
def test_a_file_is_what_its_card_and_the_benchmark_say(name):
    tensors, about = store.load(FILES[name])
    card, listed = CARDS[name], read_list("benchmark")
    hashes = {store.checksum(tensors)} | (
        {about["encoder"]["sha256"]} if about["encoder"] else set()
    )
    assert set(re.findall(r"`([0-9a-f]{64})`", card)) == hashes
    assert set(about["data"]) == set(listed["id"])
    assert f"{len(listed)} assays" in card
    assert f"{listed['variants'].sum():,} variants" in card
    settings = about["settings"]
    names = ("tasks_per_step", "support", "query", "schedule", "weight_decay", "dropout")
    asked = {name: getattr(SHIPPED, name) for name in names}
    asked |= {
        "algorithm": "ranker",
        "steps": SHIPPED.meta_steps,
        "meta_lr": SHIPPED.outer_rates[0][1],
    }
    assert {name: settings[name] for name in asked} == asked
    assert about["seed"] == 0
    command = f"mutmeta train {name}.safetensors --data-dir DATA --selection benchmark"
    assert f"{command} --encoding {about['encoding']}" in card
    assert card.count("--algorithm ranker") == 1


def score_table(means, read):
    """The lines of a card: what rankers with this read scored in the benchmark's rotations."""
    asked = "read == @read and method == 'ranker' and swap == 'same'"
    rows = means.query(asked).set_index(["metric", "group", "shots"]).sort_index()
    lines = [["labels", *map(str, SHIPPED.shots)], ["---"] * (len(SHIPPED.shots) + 1)]

    def add(words, metric="spearman", group="all"):
        one = rows.loc[metric, group].reindex(SHIPPED.shots)
        count = f" ({one['n_assays'].iloc[0]:.0f})" if group != "all" else ""
        lines.append([words + count, *("" if v != v else f"{v:.3f}" for v in one["mean"])])
        return one

    whole = add("Spearman's correlation")
    ends = zip(whole["low"], whole["high"], strict=True)
    lines.append(["95 % interval", *(f"{low:.3f} to {high:.3f}" for low, high in ends)])
    for metric, words in SCORED.items():
        add(words, metric)
    for group in PROPERTIES:
        add(f"Spearman's correlation, {group}", group=group)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


@pytest.mark.parametrize("name", PRETRAINED)
def test_a_card_has_the_scores_of_the_rotations(name):
    read = store.load(FILES[name])[1]["encoding"]
    assert score_table(read_record(RECORD).table("means"), read) in CARDS[name]


@pytest.mark.parametrize("name", PRETRAINED)
def test_it_has_the_benchmarks_networks_and_follows_the_labels(start, name):
    model, assay = start(name), read_data_dir(ids=["GB1_NISTHAL2019_on_WT"])[0]
    assert len(model.networks) == SHIPPED.members
    encoded, rows = model.encode(assay), np.random.default_rng(0).permutation(len(assay))
    known, held = (
        Examples(encoded, part, torch.zeros(len(part))) for part in np.split(rows, [100])
    )
    few, many = (model.adapt(known.take(np.arange(n))) for n in (0, 100))
    before, after = (spearman(one.predict(held), held.scores) for one in (few, many))
    assert after > before
    wide, narrow = few.deviation(held), many.deviation(held)
    inside = np.abs(many.predict(held) - held.scores) <= 1.645 * narrow
    assert 0.8 < inside.mean() < 0.98
    assert (wide >= 1).all()
    assert (narrow / many.label_scale.scale).mean() < 0.9


def test_without_labels_it_ranks_better_than_blosum62_what_it_has_been_trained_on(start):
    """The demo's proteins are in meta-training: this is of loading, the card's scores of skill."""
    model, found = start("no-encoder"), []
    for assay in read_data_dir():
        encoded = model.encode(assay)
        none = model.adapt(model.encode(replace(assay, variants=(), scores=())))
        everything = Examples(encoded, np.arange(len(assay)), torch.empty(0))
        ranked = none.predict(encoded), substitution_score(everything)
        found.append([spearman(one, assay.scores) for one in ranked])
    ours, blosum = np.mean(found, axis=0)
    assert ours > blosum + 0.1


@pytest.mark.parametrize("name", PRETRAINED)
def test_all_single_variants_of_250_residues_take_less_than_a_second(start, name):
    """Of processor time, with the pass of the wild type and ten labels; the best of three."""
    model, assay, seconds = start(name), made_up_assay(250), []
    few = replace(assay, variants=assay.variants[:10], scores=assay.scores[:10])
    for _ in range(3):
        model.sites.cache_clear()
        began = time.process_time()
        assert len(model.adapt(model.encode(few)).predict(assay.variants)) == 4750
        seconds.append(time.process_time() - began)
    assert min(seconds) < 1


def test_the_small_encoder_is_what_its_card_says():
    tensors, about = store.load(FILES["small"])
    card, listed = CARDS["small"], read_list("benchmark").set_index("id")
    assert re.findall(r"`([0-9a-f]{64})`", card) == [store.checksum(tensors)]
    seen, held = set(about["data"]), set(about["held_out"])
    assert seen | held < set(listed.index)
    assert not seen & held
    like_the_demo = {"SPG1_STRSG_Olson_2014", "A4_HUMAN_Seuma_2022", "TADBP_HUMAN_Bolognesi_2019"}
    assert not like_the_demo & (seen | held)
    for number in (len(seen), listed.loc[list(seen), "variants"].sum()):
        assert f"\n{number:,} " in card or f" {number:,} " in card
    rows = pd.DataFrame(about["scores"]).set_index(["shots", "encoder"])
    for shots in (0, 10, 40):
        small, tiny, less = (rows.loc[(shots, one)] for one in ("small", "tiny", "difference"))
        ends = f"{less['mean']:.3f}, {less['low']:.3f} to {less['high']:.3f}"
        assert f"| {shots} | {small['mean']:.3f} | {tiny['mean']:.3f} | {ends} |" in card
        assert (less["low"] > 0) == bool(shots), "the card says so"


def test_small_ranks_proteins_that_it_has_not_seen_better_than_random_weights():
    """By ridge regression on 40 labels, on each bundled protein and property."""
    mean = {}
    for name in ("small", "tiny"):
        encoder = mm.load_encoder(name, max_tokens=64)
        how = "separator", encoder.vocabulary, encoder.max_tokens
        encoded = [mm.encode_assay(assay, *how) for assay in load_assays(DEMO, per_protein=1)]
        ridge = Ridge("ridge", embedding_features(encoder, "separator", "sites"))
        rows = mm.evaluate({"ridge": ridge}, encoded, shots=[40], seeds=range(5), pool=40)
        mean[name] = rows["spearman"].mean()
    assert mean["small"] > mean["tiny"] + 0.03


def test_what_cannot_be_loaded_is_said_with_the_mend():
    with pytest.raises(
        DataError, match="no pretrained start 'esm'; use one of no-encoder, esm2-8m"
    ):
        mm.load_pretrained("esm")
    with pytest.raises(
        DataError, match=r"copy its card names, or 'facebook/esm2\S+' with strict=False"
    ):
        mm.load_pretrained("esm2-8m")
    with pytest.raises(DataError, match="with width 320, not tiny with 64"):
        mm.load_pretrained("esm2-8m", encoder="tiny", strict=False)
