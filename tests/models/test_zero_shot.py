"""Zero-shot scores: against Hugging Face by hand, blind to labels, refused without a head."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hf_directories import write_esm, write_protbert
from safetensors.torch import load_file, save_file
from toy import toy_assay
from typer.testing import CliRunner

from mutmeta_lib.cli import app
from mutmeta_lib.data.assays import Assay
from mutmeta_lib.data.variants import AMINO_ACIDS, parse_variant
from mutmeta_lib.errors import DataError
from mutmeta_lib.models import zero_shot as module
from mutmeta_lib.models.encoder import load_encoder, tiny_encoder
from mutmeta_lib.models.zero_shot import MASKED, describe_head, head_of, log_odds, zero_shot
from mutmeta_lib.records.record import read_record
from mutmeta_lib.study.evaluate import evaluate
from mutmeta_lib.tasks.tasks import encode_assay

WILD = "MKTAYIAKQRQISFVKSHFS"
both_kinds = pytest.mark.parametrize("masked", [True, False])


@pytest.fixture(scope="module", params=[write_esm, write_protbert])
def directory(request, tmp_path_factory):
    return request.param(tmp_path_factory.mktemp("lm"), positions=120, head=True)


@pytest.fixture(scope="module")
def encoder(directory):
    return load_encoder(str(directory))


@pytest.fixture(scope="module")
def model(encoder):
    return head_of(encoder)


@pytest.fixture
def passes(monkeypatch):
    """Counts texts that the model reads."""
    read, real = [], module.functional_call

    def counting(network, weights, reads):
        read.append(len(reads[0]))
        return real(network, weights, reads)

    monkeypatch.setattr(module, "functional_call", counting)
    return read


@both_kinds
def test_log_odds_are_those_of_hugging_face_by_hand(directory, model, masked):
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(directory)
    theirs = AutoModelForMaskedLM.from_pretrained(directory).eval()
    ids = tokenizer.convert_tokens_to_ids(list(AMINO_ACIDS))
    positions = [1, 4, 5, 20]
    found = log_odds(model, WILD, positions, masked=masked)
    assert (found.shape, found.dtype) == ((4, 20), np.float32)
    assert np.abs(found).max() > 1
    for row, position in zip(found, positions, strict=True):
        read = tokenizer(" ".join(WILD), return_tensors="pt")  # the start token is column 0
        if masked:
            read["input_ids"][0, position] = tokenizer.mask_token_id
        with torch.no_grad():
            expected = theirs(**read).logits[0, position].log_softmax(dim=-1)
        own = tokenizer.convert_tokens_to_ids(WILD[position - 1])
        np.testing.assert_allclose(row, expected[ids] - expected[own], rtol=1e-4, atol=1e-4)
        assert row[AMINO_ACIDS.index(WILD[position - 1])] == 0


@both_kinds
def test_neither_batches_nor_order_nor_a_long_protein_matter(model, directory, masked):
    whole = log_odds(model, WILD, range(1, 21), masked=masked)
    order = [7, 2, 20, 2]
    one_by_one = log_odds(model, WILD, order, masked=masked, batch_size=1)
    np.testing.assert_allclose(one_by_one, whole[np.array(order) - 1], rtol=1e-4, atol=1e-4)
    short = head_of(load_encoder(str(directory), max_tokens=11))  # 9 residues and a frame
    found = log_odds(short, WILD, [1, 10, 20], masked=masked)
    windows = [(WILD[:9], 1), (WILD[5:14], 5), (WILD[-9:], 9)]
    for row, (window, place) in zip(found, windows, strict=True):
        (expected,) = log_odds(short, window, [place], masked=masked)
        np.testing.assert_allclose(row, expected, rtol=1e-4, atol=1e-4)


def test_sites_without_odds_are_refused(model):
    assert log_odds(model, WILD, []).shape == (0, 20)
    assert np.isfinite(log_odds(model, "MKXA", [1, 4])).all()
    for wild, position, said in (
        ("MKXA", 3, "has X at position 3"),
        ("MKTA", 5, "position 5 lies outside the wild type"),
        ("MKTA", 0, "position"),
    ):
        with pytest.raises(DataError, match=said):
            log_odds(model, wild, [position])


def assay_of(*texts):
    variants = tuple(map(parse_variant, texts))
    return Assay("A", "p", "fitness", WILD, variants, np.arange(len(texts), dtype=float), "", "up")


@pytest.mark.parametrize("name", list(MASKED))
def test_scores_are_sums_of_log_odds_and_the_wild_type_has_none(encoder, model, name):
    scores = zero_shot(name, encoder).scores(assay_of("K2A", "Y5W", "K2A:Y5W", "WT", "K2C"))
    table = log_odds(model, WILD, [2, 5], masked=MASKED[name])
    a, w, c = (table[i, AMINO_ACIDS.index(x)] for i, x in ((0, "A"), (1, "W"), (0, "C")))
    np.testing.assert_allclose(scores, [a, w, a + w, 0.0, c], rtol=1e-5, atol=1e-5)
    assert len(set(scores)) == 5


def test_a_protein_is_read_once_and_no_label_is_used(encoder, passes):
    assay = toy_assay(0, length=12, n=60)
    encoded = encode_assay(assay, "mutant", encoder.vocabulary, encoder.max_tokens)
    methods = {name: zero_shot(name, encoder) for name in MASKED}
    table = evaluate(methods, [encoded], shots=[0, 5], seeds=[0, 1, 2])
    sites = {change.position for variant in assay.variants for change in variant}
    assert sum(passes) == len(sites) + 1
    assert table.groupby(["method", "seed"])["spearman"].nunique().eq(1).all()
    assert table["mse"].isna().all()  # natural logarithms are no measured units


def test_the_log_odds_of_a_protein_are_kept_on_disk(encoder, passes, tmp_path):
    assay = assay_of("K2A", "Y5W", "K2A:Y5W")
    first = zero_shot("zero_shot", encoder, cache_dir=str(tmp_path)).scores(assay)
    again = zero_shot("zero_shot", encoder, cache_dir=str(tmp_path)).scores(assay)
    assert sum(passes) == 2
    np.testing.assert_array_equal(first, again)
    zero_shot("zero_shot_wt", encoder, cache_dir=str(tmp_path)).scores(assay)
    assert sum(passes) == 3


@pytest.mark.parametrize("write", [write_esm, write_protbert])
def test_a_checkpoint_without_a_head_is_refused(tmp_path, write):
    """Hugging Face would draw the head at random and say nothing that stops a run."""
    from transformers import AutoModelForMaskedLM

    directory = write(tmp_path / "headless", positions=120)
    AutoModelForMaskedLM.from_pretrained(directory)  # no error: this is the trap
    for encoder, says in (
        (load_encoder(str(directory)), r"'headless' lacks \d+ weights.*facebook/esm2_t6_8M_UR50D"),
        (tiny_encoder(), "'tiny' has no language-model head"),
    ):
        assert describe_head(["maml", "blosum"], encoder) == {}
        with pytest.raises(DataError, match=says) as caught:
            describe_head(["zero_shot_wt"], encoder)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["lm_head.bias", "encoder.layer.1.output.dense.weight"])
def test_the_head_is_whole_and_part_of_the_hash(tmp_path, name):
    directory = write_esm(tmp_path / "lossy", head=True)
    encoder, file = load_encoder(str(directory)), directory / "model.safetensors"
    first, weights = head_of(encoder).sha256, load_file(file)
    assert head_of(encoder).sha256 == first != encoder.sha256
    (key,) = (key for key in weights if name in key)
    save_file(weights | {key: weights[key] + 1}, file, metadata={"format": "pt"})
    assert head_of(encoder).sha256 != first
    del weights[key]
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(DataError, match=f"'lossy' lacks 1 weights .*{name}"):
        head_of(encoder)


def test_a_tokenizer_without_a_mask_is_refused(encoder):
    with pytest.raises(DataError, match="has no mask"):
        head_of(replace(encoder, vocabulary=replace(encoder.vocabulary, mask="")))


def test_the_command_ranks_with_a_head(directory, model, tmp_path):
    output = str(tmp_path / "record.json")
    asked = ["evaluate", "--methods", "zero_shot,zero_shot_wt,blosum", "--shots", "0,5"]
    asked += ["--seeds", "1", "--per-protein", "1", "--encoder", str(directory), "--output", output]
    done = CliRunner().invoke(app, asked, env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert done.exit_code == 0, done.output
    record = read_record(output)
    assert record.encoder["head_sha256"] == model.sha256
    assert str(directory) not in str(record.encoder)
    summary = record.table("summary").query("metric == 'spearman'").set_index(["method", "shots"])
    for name in MASKED:
        assert np.isfinite(summary.loc[(name, 0), "mean"])
        assert summary.loc[(name, 0), "mean"] == summary.loc[(name, 5), "mean"]
