import numpy as np
import pytest
from toy_protocol import OTHER, toy_release

from mutmeta_lib.reproduction.protocol_contrast import (
    BASES,
    LEARNERS,
    PARTS,
    contrast_numbers,
    contrast_tables,
    text_table,
)
from mutmeta_lib.reproduction.protocol_data import read_protocol
from mutmeta_lib.reproduction.protocol_steps import ARMS
from mutmeta_lib.tasks.vocabulary import TINY_VOCABULARY

FACTORS = {"separator": 0.5, "unknown_text": 1.0}


def results(encoding, seeds=3):
    """Errors that halve with the separator, and with any arm, and by a fifth more with both."""
    made = []
    for seed in range(seeds):
        base = np.random.default_rng(seed).lognormal(size=20)
        drawn = {}
        for method in LEARNERS:
            factor = FACTORS[encoding]
            if method in ARMS:
                factor *= 0.5 * (0.8 if encoding == "separator" else 1.0)
            ranks = np.full(20, 0.4 if encoding == "separator" else 0.1)
            drawn[method] = {"mse": (factor * base).tolist(), "spearman": ranks.tolist()}
        made.append({"targets": {"fireprot_dTm": {"draws": {"16": drawn}}}})
    return made


@pytest.fixture
def tables():
    return contrast_tables({name: results(name) for name in FACTORS}, (16,), "tiny")


def test_the_gain_of_the_first_encoding_is_told_per_method(tables):
    encodings = tables["encodings"].set_index("method")
    assert set(encodings.index) == set(LEARNERS)
    assert encodings.loc["finetuned", "gain"] == pytest.approx(50)
    assert encodings.loc["released", "gain"] == pytest.approx(60)
    assert encodings["spearman"].to_numpy() == pytest.approx(0.3)
    assert set(encodings["encoding"]) == {"separator"}
    assert set(encodings["against"]) == {"unknown_text"}


def test_shares_are_those_of_two_by_two_and_multiply(tables):
    shares = tables["shares"]
    assert len(shares) == len(ARMS) * len(BASES) * len(PARTS)
    by_part = shares[shares["base"] == "initial_adapted"].pivot(
        index="method", columns="part", values="gain"
    )
    assert by_part.loc["second_order"].to_dict() == pytest.approx(
        {"encoding": 50, "meta": 50, "interaction": 20, "both": 80}
    )
    kept = 1 - by_part / 100
    product = kept["encoding"] * kept["meta"] * kept["interaction"]
    assert product.to_numpy() == pytest.approx(kept["both"].to_numpy())


def test_one_encoding_has_nothing_to_be_set_against():
    made = contrast_tables({"separator": results("separator")}, (16,), "tiny")
    assert all(table.empty for table in made.values())


def test_numbers_are_named_by_what_is_set_against_what(tables, tmp_path):
    data = read_protocol(toy_release(tmp_path / "copy"))
    texts = text_table(data, tuple(FACTORS), TINY_VOCABULARY, 256).assign(encoder="tiny")
    numbers = contrast_numbers(tables["encodings"], tables["shares"], texts)
    gain = numbers["tiny_dTm_released_separator_over_unknown_text"]
    assert gain["value"] == pytest.approx(60)
    assert gain["n"] == 60
    assert numbers["tiny_dTm_initial_separator_over_unknown_text_spearman"]["value"] > 0
    name = "tiny_dTm_released_and_finetuned_interaction_separator_over_unknown_text"
    assert numbers[name]["value"] == pytest.approx(20)
    counted = numbers["tiny_unknown_text_dTm_texts"]
    assert (counted["value"], counted["unit"]) == (1, "of 60 rows")


def test_single_mutants_of_one_protein_are_one_text_without_their_residues(tmp_path):
    data = read_protocol(toy_release(tmp_path / "copy"))
    texts = text_table(data, tuple(FACTORS), TINY_VOCABULARY, 256).set_index(["target", "encoding"])
    rows = data.test["binding_affinity"].variants
    assert {sequence for sequence, _ in rows} == {OTHER}
    assert texts.loc[("binding_affinity", "unknown_text"), "texts"] == 1
    assert texts.loc[("binding_affinity", "separator"), "texts"] == len(set(rows))
    assert texts.loc[("binding_affinity", "separator"), "rows"] == len(rows)


def test_beyond_the_context_the_window_tells_texts_apart(tmp_path):
    data = read_protocol(toy_release(tmp_path / "copy"))
    short = text_table(data, ("unknown_text",), TINY_VOCABULARY, 10).set_index("target")
    assert short.loc["binding_affinity", "texts"] > 1
