import dataclasses
import errno
import os
import warnings

import numpy as np
import pytest
import torch

from mutmeta_lib.data.variants import parse_variant
from mutmeta_lib.errors import DataError
from mutmeta_lib.models import embeddings
from mutmeta_lib.models.embeddings import cached_embeddings, embed
from mutmeta_lib.models.encoders import tiny_encoder
from mutmeta_lib.models.pooling import POOLINGS, pool
from mutmeta_lib.tasks.encodings import encode_variants

WILD_TYPE = "MKTAYIAKQR"


@pytest.fixture(scope="module")
def encoder():
    return tiny_encoder(width=16, heads=2)


@pytest.fixture(scope="module")
def batch(encoder):
    texts = ["WT", "T3G", "M1A:K2L", "R10W", "M1A:K2L:T3G", "A4C"]
    variants = [parse_variant(text) for text in texts]
    return encode_variants("separator", WILD_TYPE, variants, encoder.vocabulary, 100)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_embeddings_are_pooled_hidden_states_in_the_order_of_rows(
    encoder, batch, pooling, batch_size
):
    values = embed(encoder, batch, pooling, batch_size=batch_size)
    expected = pool(encoder.module(batch.token_ids, batch.mask), batch, pooling)
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, expected.detach().numpy(), rtol=1e-4, atol=1e-5)


def test_no_rows(encoder, batch):
    assert embed(encoder, batch.rows([]), "mean").shape == (0, 16)


def test_the_encoder_is_left_as_it_was(encoder, batch):
    before = {name: value.clone() for name, value in encoder.module.state_dict().items()}
    embed(encoder, batch, "mean")
    assert all(torch.equal(before[k], v) for k, v in encoder.module.state_dict().items())
    assert all(parameter.grad is None for parameter in encoder.module.parameters())


@pytest.fixture
def no_computing(monkeypatch):
    """From here on embeddings must come from the cache."""

    def refuse(*arguments, **options):
        raise AssertionError("the embeddings were computed again")

    return lambda: monkeypatch.setattr(embeddings, "embed", refuse)


def test_the_second_call_reads_the_file(encoder, batch, tmp_path, no_computing):
    first = cached_embeddings(encoder, batch, "mean", tmp_path / "new" / "cache")
    np.testing.assert_array_equal(first, embed(encoder, batch, "mean"))
    no_computing()
    second = cached_embeddings(encoder, batch, "mean", tmp_path / "new" / "cache")
    np.testing.assert_array_equal(second, first)
    assert [file.suffix for file in (tmp_path / "new" / "cache").iterdir()] == [".npz"]


def test_whatever_the_embeddings_depend_on_is_another_file(encoder, batch, tmp_path):
    other_tokens = batch.token_ids.clone()
    other_tokens[0, 1] = 5
    calls = [
        (encoder, batch, "mean"),
        (tiny_encoder(seed=1, width=16, heads=2), batch, "mean"),
        (encoder, batch, "sites"),
        (encoder, dataclasses.replace(batch, token_ids=other_tokens), "mean"),
        (encoder, dataclasses.replace(batch, sites=batch.sites.flip(1)), "mean"),
        (encoder, batch.rows([1, 0, 2, 3, 4, 5]), "mean"),
        (encoder, batch.rows([0, 1]), "mean"),
    ]
    for number, arguments in enumerate(calls, start=1):
        values = cached_embeddings(*arguments, tmp_path)
        assert len(list(tmp_path.iterdir())) == number
        np.testing.assert_array_equal(values, embed(*arguments))


def test_a_lower_precision_is_near_and_another_file(encoder, batch, tmp_path):
    exact = cached_embeddings(encoder, batch, "mean", tmp_path)
    low = cached_embeddings(encoder, batch, "mean", tmp_path, precision="bfloat16")
    assert len(list(tmp_path.iterdir())) == 2
    assert low.dtype == np.float32
    assert 0 < np.abs(low - exact).max() < 0.05 * np.abs(exact).max()
    with pytest.raises(DataError, match="no precision 'float16'"):
        embed(encoder, batch, "mean", precision="float16")


def flip_a_bit(file, values):
    content = bytearray(file.read_bytes())
    place = content.find(values.tobytes()[:16])
    content[place] ^= 1
    file.write_bytes(content)


def cut_short(file, values):
    file.write_bytes(file.read_bytes()[:-30])


def write_nonsense(file, values):
    file.write_bytes(b"nonsense")


def empty(file, values):
    file.write_bytes(b"")


def change_a_value_with_valid_zip(file, values):
    with np.load(file) as archive:
        checksum = archive["checksum"]
    np.savez(file, embeddings=values + 1, checksum=checksum)


def leave_out_the_checksum(file, values):
    np.savez(file, embeddings=values)


def change_the_shape(file, values):
    np.savez(file, embeddings=values[:, :3], checksum=np.array("0"))


def change_the_type(file, values):
    np.savez(file, embeddings=values.astype(float), checksum=np.array("0"))


def pickle_objects(file, values):
    np.savez(file, embeddings=np.array([{"a": 1}], dtype=object), checksum=np.array("0"))


def put_another_key_in_its_place(file, values):
    np.savez(
        file, embeddings=values, checksum=np.array(embeddings._checksum("another key", values))
    )


@pytest.mark.parametrize(
    "damage",
    [
        flip_a_bit,
        cut_short,
        write_nonsense,
        empty,
        change_a_value_with_valid_zip,
        leave_out_the_checksum,
        change_the_shape,
        change_the_type,
        pickle_objects,
        put_another_key_in_its_place,
    ],
)
def test_a_damaged_file_is_named_computed_anew_and_replaced(encoder, batch, tmp_path, damage):
    values = cached_embeddings(encoder, batch, "mean", tmp_path)
    (file,) = tmp_path.iterdir()
    sound = file.read_bytes()
    damage(file, values)
    assert file.read_bytes() != sound
    with pytest.warns(UserWarning, match=file.name):
        again = cached_embeddings(encoder, batch, "mean", tmp_path)
    np.testing.assert_array_equal(again, values)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        third = cached_embeddings(encoder, batch, "mean", tmp_path)
    np.testing.assert_array_equal(third, values)
    assert [file] == list(tmp_path.iterdir())


def test_any_flipped_byte_is_noticed_or_harmless(encoder, batch, tmp_path):
    """No single flipped byte anywhere in the file changes what is read."""
    small = batch.rows([0])
    values = cached_embeddings(encoder, small, "cls", tmp_path)
    (file,) = tmp_path.iterdir()
    key, sound, noticed = embeddings.content_key(encoder, small, "cls"), file.read_bytes(), 0
    for place in range(len(sound)):
        damaged = bytearray(sound)
        damaged[place] ^= 0xFF
        file.write_bytes(damaged)
        try:
            read = embeddings._read(file, key, values.shape)
        except ValueError:
            noticed += 1
        else:
            np.testing.assert_array_equal(read, values)
    assert noticed > values.nbytes


def test_an_interrupted_write_leaves_no_file(encoder, batch, tmp_path, monkeypatch):
    def stop(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(embeddings.np, "savez", stop)
    with pytest.raises(KeyboardInterrupt):
        cached_embeddings(encoder, batch, "mean", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_costs_the_cache_and_not_the_work(encoder, batch, tmp_path, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.warns(UserWarning, match=r"cannot be kept in .*\(No space left on device\)"):
            values = cached_embeddings(encoder, batch, "mean", tmp_path)
    np.testing.assert_array_equal(values, embed(encoder, batch, "mean"))
    assert not list(tmp_path.iterdir())


def test_a_file_in_place_of_the_folder_is_told_before_any_work(encoder, batch, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(DataError, match=r"cache: the folder of cached embeddings cannot be used"):
        cached_embeddings(encoder, batch, "mean", tmp_path / "cache")


def test_a_file_that_may_not_be_read_is_computed_anew(encoder, batch, tmp_path, monkeypatch):
    values = cached_embeddings(encoder, batch, "mean", tmp_path)

    def denied(*args, **kwargs):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(np, "load", denied)
    with pytest.warns(UserWarning, match=r"cannot be read \(PermissionError\); they are computed"):
        again = cached_embeddings(encoder, batch, "mean", tmp_path)
    np.testing.assert_array_equal(again, values)
