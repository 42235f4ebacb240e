"""Zero-shot methods: additive, blind to labels, run once per protein, refused without a head."""

from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from hf_directories import write_esm, write_protbert
from toy import toy_assay
from typer.testing import CliRunner

from mutmeta_lib.cli import app
from mutmeta_lib.data.assays import Assay
from mutmeta_lib.data.variants import AMINO_ACIDS, parse_variant
from mutmeta_lib.errors import DataError
from mutmeta_lib.learn.methods import Given, build_methods
from mutmeta_lib.models import language_model
from mutmeta_lib.models.encoders import load_encoder, tiny_encoder
from mutmeta_lib.models.language_model import load_language_model, log_odds
from mutmeta_lib.models.predictor import Predictor
from mutmeta_lib.models.zero_shot import MASKED, add_up, describe_head, zero_shot
from mutmeta_lib.study.evaluate import evaluate
from mutmeta_lib.tasks.tasks import draw_task, encode_assay, task_generator

WILD = "MKTAYIAKQRQI"


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return str(write_esm(tmp_path_factory.mktemp("lm") / "esm", positions=120, head=True))


@pytest.fixture(scope="module")
def encoder(directory):
    return load_encoder(directory)


@pytest.fixture
def passes(monkeypatch):
    """Counts texts that the model reads."""
    read = []
    real = language_model.functional_call

    def counting(module, weights, reads):
        read.append(len(reads[0]))
        return real(module, weights, reads)

    monkeypatch.setattr(language_model, "functional_call", counting)
    return read


def assay_of(*texts, wild_type=WILD):
    return Assay(
        id="A",
        protein="p",
        property="fitness",
        wild_type=wild_type,
        variants=tuple(map(parse_variant, texts)),
        scores=np.arange(len(texts), dtype=float),
        units="none",
        sign="higher = better",
    )


@pytest.mark.parametrize("name", list(MASKED))
def test_scores_are_sums_of_log_odds_and_the_wild_type_has_none(encoder, directory, name):
    texts = ["K2A", "Y5W", "K2A:Y5W", "WT", "K2C"]
    scores = zero_shot(name, encoder).scores(assay_of(*texts))
    table = log_odds(load_language_model(directory), WILD, [2, 5], masked=MASKED[name])
    first = table[0, AMINO_ACIDS.index("A")]
    second = table[1, AMINO_ACIDS.index("W")]
    third = table[0, AMINO_ACIDS.index("C")]
    expected = [first, second, first + second, 0.0, third]
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-5)
    assert scores[3] == 0
    assert len(set(scores)) == 5


def test_the_two_kinds_of_marginals_differ(encoder):
    assay = assay_of("K2A", "Y5W")
    one, other = (zero_shot(name, encoder).scores(assay) for name in MASKED)
    assert np.abs(one - other).max() > 1e-2


def test_a_protein_is_read_once_for_all_draws(encoder, passes):
    assay = toy_assay(0, length=12, n=60)
    encoded = encode_assay(assay, "mutant", encoder.vocabulary, encoder.max_tokens)
    methods = {name: zero_shot(name, encoder) for name in MASKED}
    table = evaluate(methods, [encoded], shots=[0, 5], seeds=[0, 1, 2])
    sites = {change.position for variant in assay.variants for change in variant}
    assert sum(passes) == len(sites) + 1
    assert table.groupby(["method", "seed"])["spearman"].nunique().eq(1).all()  # labels unused
    assert table["mse"].isna().all()  # natural logarithms are no measured units


def test_the_log_odds_of_a_protein_are_kept_on_disk(encoder, passes, tmp_path):
    assay = assay_of("K2A", "Y5W", "K2A:Y5W")
    first = zero_shot("zero_shot", encoder, cache_dir=str(tmp_path)).scores(assay)
    assert sum(passes) == 2
    again = zero_shot("zero_shot", encoder, cache_dir=str(tmp_path)).scores(assay)
    assert sum(passes) == 2
    np.testing.assert_array_equal(first, again)
    zero_shot("zero_shot_wt", encoder, cache_dir=str(tmp_path)).scores(assay)
    assert sum(passes) == 3
    assert len(list(tmp_path.iterdir())) == 2
    for file in tmp_path.iterdir():
        file.write_bytes(file.read_bytes()[:-10])
    with pytest.warns(UserWarning, match="log-odds.*computed anew"):
        mended = zero_shot("zero_shot", encoder, cache_dir=str(tmp_path)).scores(assay)
    np.testing.assert_array_equal(first, mended)


def test_predictions_follow_the_rows_of_the_query(encoder):
    assay = toy_assay(1, length=12, n=40)
    encoded = encode_assay(assay, "mutant", encoder.vocabulary, encoder.max_tokens)
    made = partial(zero_shot, encoder=encoder)
    given = Given(Predictor(encoder, "sites"), zero_shot=made)
    method = build_methods(["zero_shot"], given, {}, {})["zero_shot"]
    drawn = draw_task(encoded, 5, task_generator(0, "t"), pool=10, max_query=12)
    state = method.adapt(drawn.support, torch.Generator())
    predicted = method.predict(state, drawn.query)
    np.testing.assert_array_equal(predicted, method.scores(assay)[drawn.query.rows])


def test_many_variants_take_no_more_passes_than_sites(encoder, passes):
    pairs = [
        f"{a}{i}{x}:{b}{j}{y}"
        for (i, a), (j, b) in pairwise(enumerate(WILD, start=1))
        for x in AMINO_ACIDS
        for y in AMINO_ACIDS
        if x != a and y != b
    ]
    assert len(zero_shot("zero_shot", encoder).scores(assay_of(*pairs))) > 3000
    assert sum(passes) == len(WILD)


def test_a_shorter_context_is_that_of_the_encoder(directory):
    whole, short = (load_encoder(directory, max_tokens=n) for n in (None, 7))
    assay = assay_of("K2A", "Y5W")
    one, other = (zero_shot("zero_shot", e).scores(assay) for e in (whole, short))
    assert np.abs(one - other).max() > 1e-3


def test_no_sum_over_no_variants():
    assert add_up([], [], np.empty((0, 20))).shape == (0,)


def test_a_record_tells_of_the_head_only_if_it_is_used(encoder, directory):
    assert describe_head(["maml", "blosum"], encoder) == {}
    told = describe_head(["maml", "zero_shot"], encoder)
    assert told == {"head_sha256": load_language_model(directory).sha256}


@pytest.mark.parametrize("write", [write_esm, write_protbert])
def test_without_a_head_they_are_refused(write, tmp_path):
    headless = load_encoder(str(write(tmp_path / "headless", positions=120)))
    for encoder, says in (
        (tiny_encoder(), "'tiny' has no language-model"),
        (headless, "'headless' comes w"),
    ):
        with pytest.raises(DataError, match=says):
            describe_head(["zero_shot_wt"], encoder)


def test_the_command_refuses_tiny_in_one_sentence():
    done = CliRunner().invoke(app, ["evaluate", "--methods", "zero_shot"], env={"NO_COLOR": "1"})
    assert done.exit_code == 2
    assert "'tiny' has no language-model head" in done.stderr
    assert "facebook/esm2_t6_8M_UR50D" in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_command_ranks_with_a_head(directory, tmp_path):
    from mutmeta_lib.records.record import read_record

    output = str(tmp_path / "record.json")
    asked = ["evaluate", "--methods", "zero_shot,zero_shot_wt,blosum", "--shots", "0,5"]
    asked += ["--seeds", "1", "--per-protein", "1", "--encoder", directory, "--output", output]
    done = CliRunner().invoke(app, asked, env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert done.exit_code == 0, done.output
    record = read_record(output)
    assert record.encoder["head_sha256"] == load_language_model(directory).sha256
    assert directory not in str(record.encoder)
    summary = record.table("summary").query("metric == 'spearman'").set_index(["method", "shots"])
    for name in MASKED:
        assert np.isfinite(summary.loc[(name, 0), "mean"])
        assert summary.loc[(name, 0), "mean"] == summary.loc[(name, 5), "mean"]
