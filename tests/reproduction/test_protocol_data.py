import numpy as np
import pytest
from toy_protocol import toy_release

from mutmeta_lib.errors import DataError
from mutmeta_lib.models.embeddings import embed
from mutmeta_lib.models.encoders import tiny_encoder
from mutmeta_lib.reproduction.protocol_data import (
    TARGETS,
    cap_rows,
    encode_protocol,
    protocol_of_assays,
    read_protocol,
)
from mutmeta_lib.reproduction.release import find_file, read_release
from mutmeta_lib.study.setting import load_assays

ENCODER = tiny_encoder(width=16, layers=1, heads=2)


@pytest.fixture
def copy(tmp_path):
    return toy_release(tmp_path / "copy")


def test_files_are_read_as_they_are_split(copy):
    data = read_protocol(copy)
    files = read_release(copy)
    assert list(data.train) == list(data.test) == list(TARGETS)
    assert data.sha256 == {id: file.sha256 for id, file in files.items()}
    assert data.test["fireprot_dTm"].labels.tolist() == files["fireprot_dTm_test"].labels.tolist()
    both = [*files["combined_ddG_train"].labels, *files["combined_ddG_test"].labels]
    assert data.initial.labels.tolist() == both


def test_a_missing_training_file_is_made_from_the_test_file(copy):
    data = read_protocol(copy)
    assert data.resplit == ("soluprotmut_solubility",)
    train, test = data.train["soluprotmut_solubility"], data.test["soluprotmut_solubility"]
    assert (len(train), len(test)) == (48, 12)
    whole = read_release(copy)["soluprotmut_solubility_test"].labels
    assert sorted([*train.labels, *test.labels]) == sorted(whole)
    again = read_protocol(copy).test["soluprotmut_solubility"]
    assert again.labels.tolist() == test.labels.tolist()


def test_a_missing_test_file_is_refused(copy):
    find_file(copy, "fireprot_dTm_test").unlink()
    with pytest.raises(DataError, match="no table 'fireprot_dTm_test'"):
        read_protocol(copy)


def test_caps_touch_what_is_trained_on_and_nothing_else(copy):
    data = read_protocol(copy)
    capped = cap_rows(data, 20)
    assert len(capped.initial) == 20
    assert {len(rows) for rows in capped.train.values()} == {20}
    assert all(capped.test[name] is data.test[name] for name in TARGETS)
    assert set(capped.initial.labels) <= set(data.initial.labels)
    assert cap_rows(data, 20).initial.labels.tolist() == capped.initial.labels.tolist()
    assert cap_rows(data, 0).initial is data.initial


@pytest.mark.parametrize("encoding", ["separator", "unknown_text"])
def test_frozen_vectors_are_those_of_every_row(copy, encoding, tmp_path):
    data = cap_rows(read_protocol(copy), 20)
    told = []
    frozen = encode_protocol(
        data,
        encoding,
        ENCODER,
        frozen=True,
        cache_dir=str(tmp_path / "cache"),
        progress=lambda *at: told.append(at),
    )
    trained = encode_protocol(data, encoding, ENCODER, frozen=False)
    assert told[-1][0] == told[-1][1]
    for name in TARGETS:
        direct = embed(ENCODER, trained.test[name].tokens, "cls")
        np.testing.assert_allclose(frozen.test[name].tokens.states, direct, atol=1e-5)
        assert frozen.test[name].labels.equal(trained.test[name].labels)
    some = frozen.train["fireprot_dTm"].take(np.array([3, 0]))
    assert some.tokens.hidden.equal(frozen.train["fireprot_dTm"].tokens.states[[3, 0]])
    assert some.labels.tolist() == frozen.train["fireprot_dTm"].labels[[3, 0]].tolist()
    if encoding == "unknown_text":  # where all variants of a protein are one text
        assert told[-1][1] < 5


def test_a_target_is_not_among_the_others(copy):
    data = encode_protocol(read_protocol(copy), "mutant", ENCODER, frozen=False)
    others = data.others("fireprot_dTm")
    assert len(others) == 2
    assert all(part is not data.test["fireprot_dTm"] for parts in others for part in parts)


def test_assays_are_scaled_over_all_rows_before_the_split():
    first, *rest = load_assays("demo", per_protein=1)
    data = protocol_of_assays(first, {"a": rest[:1], "b": rest[1:2]})
    labels = np.concatenate([data.train["a"].labels, data.test["a"].labels])
    assert labels.mean() == pytest.approx(0, abs=1e-9)
    assert labels.std() == pytest.approx(1)
    assert data.sha256[first.id] == first.sha256
    assert data.resplit == ("a", "b")
