"""The protocol's estimates and its record."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from release_copy import named_on_pages, toy_release

from mutmeta_lib.errors import DataError
from mutmeta_lib.records.record import read_record, write_record
from mutmeta_lib.reproduction import protocol
from mutmeta_lib.reproduction import protocol_estimates as estimates
from mutmeta_lib.reproduction.protocol import TARGETS, read_protocol
from mutmeta_lib.reproduction.protocol_run import ARMS

ASKED = {
    **{"sizes": [3], "draws": 2, "seeds": 2, "initial_epochs": 1, "finetune_epochs": 1},
    **{"maml_epochs": 1, "inner_steps": 1, "time_rows": [20], "time_seeds": 1, "tiny_sizes": [4]},
    **{"tiny_draws": 2, "tiny_rows": 40, "tiny_max_tokens": 32, "tiny_initial_epochs": 1},
}
FACTORS = {"initial": 1, "finetuned": 1, "initial_adapted": 2, "mean": 4, "finetuned_slow": 3}


def scores(encodings=("separator", "unknown_text"), sizes=(16,), seeds=3, draws=30):
    """Errors that halve with the separator, halve with any arm, and fall by a fifth with both."""
    rows = []
    for encoding, seed in product(encodings, range(seeds)):
        separator, rng = encoding == "separator", np.random.default_rng(seed)
        factors = FACTORS | dict.fromkeys(ARMS, 0.5 * (0.8 if separator else 1))
        for size in (0, *sizes):
            base = rng.lognormal(size=draws) if size else [10.0]
            rows += [
                {"encoder": "tiny", "encoding": encoding, "target": "fireprot_dTm",
                 "seed": seed, "size": size, "draw": draw, "method": method,
                 "mse": factor * (0.5 if separator else 1) * error,
                 "spearman": (0.4 if separator else 0.1) / factor}
                for method, factor in factors.items() for draw, error in enumerate(base)
            ]  # fmt: skip
    return pd.DataFrame(rows)


def test_gains_average_errors_over_seeds_and_ratios_geometrically_over_draws():
    values, other = np.array([[1.0, 8.0], [3.0, 8.0]]), np.ones((2, 1))
    found = estimates.gain([(1, values), (-1, other)])
    assert found["gain"] == pytest.approx(100 * (1 - np.sqrt(2.0 * 8.0)))
    assert found["low"] <= found["gain"] <= found["high"]
    a, b = np.random.default_rng(0).lognormal(size=(2, 5, 40))
    ratio = [(1, 0.6 * a), (-1, a), (-1, 0.8 * b), (1, b)]
    for terms, exact in (([(1, 0.71 * a), (-1, a)], 29), (ratio, 25)):
        assert list(estimates.gain(terms).values()) == pytest.approx([exact] * 3)
    undefined = np.array([[0.5, np.nan], [0.5, 0.9]])
    assert list(estimates.rank_difference(undefined).values()) == pytest.approx([0.5] * 3)


def test_each_comparison_takes_its_own_method_and_rows():
    table = scores(["unknown_text"], sizes=(8, 16))
    made = estimates.gain_tables(table)
    gains = made["gains"].query("method == 'released' and size == 16").set_index("against")
    expected = {"same_rows": 50, "same_labels": 75, "mean": 87.5, "same_rows_slow": 100 * 5 / 6}
    for against, gain in expected.items():
        assert gains.loc[against, "gain"] == pytest.approx(gain)
        assert gains.loc[against, ["over_0", "over_29", "over_94"]].tolist() == [100, 100, 0]
    assert gains.loc["same_rows", "spearman"] == pytest.approx(0.1 / 0.5 - 0.1)
    drawn = table.query("method == 'released' and size == 16")
    single = drawn.pivot(index="seed", columns="draw", values="mse").to_numpy() / 10
    reported = gains.loc["reported", ["first", "over_94", "q50", "seeds", "draws"]].tolist()
    first, median = (100 * (1 - x) for x in (single[0, 0], np.median(single)))
    assert reported == pytest.approx([first, 100 * np.mean(single <= 0.06), median, 3, 30])


def test_the_first_encoding_is_set_against_the_other():
    made = estimates.contrast_tables(scores())
    encodings = made["encodings"].set_index("method")
    assert set(encodings.index) == set(estimates.LEARNERS)
    assert encodings.loc["finetuned", "gain"] == pytest.approx(50)
    assert encodings.loc["released", "gain"] == pytest.approx(60)
    assert encodings.loc["initial", "spearman"] == pytest.approx(0.3)
    shares = made["shares"].query("base == 'finetuned'")
    shares = shares.pivot(index="method", columns="part", values="gain")
    parts = {"encoding": 50, "meta": 50, "interaction": 20, "both": 80}
    assert shares.loc["second_order"].to_dict() == pytest.approx(parts)
    assert all(table.empty for table in estimates.contrast_tables(scores(["mutant"])).values())


def test_means_are_over_draws_and_seeds_ranges_over_seeds_and_time_is_saved():
    table, where = scores(["mutant"]), {"encoder": "tiny", "encoding": "mutant"}
    spent = {"finetuned": 4.0} | {f"{arm}_16": 1.0 for arm in ARMS}
    seconds = pd.DataFrame(
        {"seed": seed, "phase": phase, "seconds": s + seed, "target": "fireprot_dTm", **where}
        for phase, s in spent.items() for seed in (0, 1)
    )  # fmt: skip
    table.loc[table["size"] == 0, "mse"] += table["seed"]
    made = estimates.mean_tables(table, seconds)
    errors = made["errors"].query("method == 'finetuned'").iloc[0]
    own = table.query("method == 'finetuned' and size == 16")
    assert errors[["mse", "median_mse"]].tolist() == [own["mse"].mean(), own["mse"].median()]
    whole = made["whole"].query("method == 'finetuned'").iloc[0]
    assert whole[["mse", "least", "most"]].tolist() == [11.0, 10.0, 12.0]
    assert made["seconds"].iloc[0][["seconds", "least", "most"]].tolist() == [4.5, 4.0, 5.0]
    made |= estimates.gain_tables(table) | estimates.contrast_tables(table)
    made |= {"texts": pd.DataFrame({"target": [], "rows": [], "texts": []})}
    saved = estimates.protocol_numbers(made)["tiny_mutant_dTm_released_time"]["value"]
    assert saved == pytest.approx(100 * (1 - 1.5 / 4.5))


def test_a_new_record_holds_every_number_that_a_page_names():
    asked = [("esm2", scores(sizes=(8, 16, 32), draws=3)), ("tiny", scores(["separator"], draws=3))]
    parts = [made.assign(encoder=e, target=target) for target in TARGETS for e, made in asked]
    places = (table := pd.concat(parts))[estimates.WHERE].drop_duplicates()
    phases = ["finetuned", *(f"{arm}_16" for arm in ARMS)]
    seconds = places.merge(pd.DataFrame({"phase": phases, "seconds": 1.0}), how="cross")
    tables = estimates.gain_tables(table) | estimates.contrast_tables(table)
    tables |= estimates.mean_tables(table, seconds)
    made = estimates.protocol_numbers(tables | {"texts": places.assign(texts=1, rows=2)})
    assert named_on_pages("protocol") <= set(made)


def test_a_record_of_both_encoders_and_a_resumed_run(tmp_path, monkeypatch):
    copy, encoders, seed = toy_release(tmp_path / "copy"), [], protocol.run_seed

    def watched(trial):
        encoders.append((trial.protocol.name, trial.predictor.encoder.sha256))
        return seed(trial)

    monkeypatch.setattr(protocol, "run_seed", watched)
    asked = ASKED | {"encoder": "tiny", "encodings": ["separator", "unknown_text"]}
    asked |= {"checkpoint_dir": str(tmp_path / "kept"), "cache_dir": str(tmp_path / "cache")}
    record = protocol.protocol_experiment(release_dir=str(copy), **asked)
    assert len({sha for name, sha in encoders if name == "tiny"}) == 2, "weights are the seed's"
    assert set(record.data) == set(read_protocol(copy)[2])
    write_record(record, tmp_path / "protocol.json")
    assert read_record(tmp_path / "protocol.json") == record
    cells = record.table("gains")[["encoder", "encoding", "target"]].drop_duplicates()
    ran = (("frozen_tiny", "separator"), ("frozen_tiny", "unknown_text"), ("tiny", "separator"))
    expected = {(*run, target) for run in ran for target in TARGETS}
    assert set(cells.itertuples(index=False, name=None)) == expected
    rows = record.table("rows").set_index("part")
    assert rows[rows["resplit"]].index.str.split().str[0].unique().tolist() == [TARGETS[2]]
    assert rows.loc["initial", ["rows", "frozen_tiny", "tiny"]].tolist() == [120, 120, 40]
    texts = record.table("texts").set_index(["encoder", "target", "encoding"])["texts"]
    assert texts["frozen_tiny", TARGETS[1], "unknown_text"] == 1
    assert texts["tiny", TARGETS[1], "separator"] > 10

    def broken(*_):
        raise AssertionError("kept parts are not computed again")

    monkeypatch.setattr(protocol, "run_seed", broken)
    monkeypatch.setattr(protocol, "encode_protocol", broken)
    asked |= {"encodings": ["unknown_text"], "seeds": 1}
    fewer = protocol.protocol_experiment(release_dir=str(copy), **asked)
    assert set(fewer.table("gains")["seeds"]) == {1}
    with pytest.raises(DataError, match="there is no encoder to run"):
        protocol.protocol_experiment(release_dir=str(copy), tiny_encodings=[])
