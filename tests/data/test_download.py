import hashlib
import io
import shutil
import stat
import time
import zipfile

import pytest
import requests

from mutmeta_lib.data import download
from mutmeta_lib.data.assays import read_proteingym
from mutmeta_lib.data.download import ARCHIVE, REFERENCE, fetch_proteingym, unzip
from mutmeta_lib.errors import DataError

CSV = "mutant,mutated_sequence,DMS_score,DMS_score_bin\nK2R,MRT,0.5,1\nT3A,MKA,-1.5,0\n"
REFERENCE_CSV = b"DMS_id,UniProt_ID,target_seq,coarse_selection_type\nX_2020,X,MKT,Stability\n"


def zipped(members, compress=zipfile.ZIP_DEFLATED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compress) as archive:
        for name, text in members:
            archive.writestr(name, text)
    return buffer.getvalue()


GOOD = zipped([("DMS_ProteinGym_substitutions/X_2020.csv", CSV)])


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    """pooch waits between tries."""
    monkeypatch.setattr(time, "sleep", lambda _: None)


class Record:
    """Stands for the Zenodo record: hands out bytes, and counts how often."""

    def __init__(self, **files):
        self.files = files
        self.calls = []

    @property
    def registry(self):
        return {name: f"md5:{hashlib.md5(data).hexdigest()}" for name, data in self.files.items()}

    def __call__(self, url, output_file, pooch):
        name = url.rsplit("/", 1)[-1]
        self.calls.append(name)
        with open(output_file, "wb") as handle:
            handle.write(self.files[name])


def record(archive=GOOD, reference=REFERENCE_CSV):
    files = {ARCHIVE: archive}
    return Record(**files, **({REFERENCE: reference} if reference else {}))


def fetch(source, cache):
    return fetch_proteingym(cache, registry=source.registry, downloader=source)


def test_a_good_archive_is_fetched_once_and_read(tmp_path):
    source = record()
    folder = fetch(source, tmp_path)
    assay = read_proteingym(
        folder / "DMS_ProteinGym_substitutions" / "X_2020.csv", folder / REFERENCE
    )
    assert assay.property == "stability"
    assert assay.scores.tolist() == [0.5, -1.5]
    assert fetch(source, tmp_path) == folder
    assert source.calls == [ARCHIVE, REFERENCE]


def test_a_record_without_the_reference_file_warns(tmp_path):
    with pytest.warns(UserWarning, match="reference_files"):
        folder = fetch(record(reference=None), tmp_path)
    assert (folder / "DMS_ProteinGym_substitutions" / "X_2020.csv").read_text() == CSV


def test_a_wrong_checksum_is_refused_and_nothing_kept(tmp_path):
    source = record()
    registry = {**source.registry, ARCHIVE: "md5:" + "0" * 32}
    with pytest.raises(DataError, match="is not the file of the record"):
        fetch_proteingym(tmp_path, registry=registry, downloader=source)
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_a_record_without_the_archive_lists_what_it_has(tmp_path):
    with pytest.raises(DataError, match=r"has no file .*; it has other\.zip"):
        fetch_proteingym(tmp_path, registry={"other.zip": "md5:0"})


def test_no_network_is_told(tmp_path, monkeypatch):
    def offline(*_, **__):
        raise requests.ConnectionError("no route")

    monkeypatch.setattr(requests, "get", offline)
    with pytest.raises(DataError, match=r"could not be read .*; check the network"):
        fetch_proteingym(tmp_path)

    with pytest.raises(DataError, match=r"could not be downloaded \(no route\)"):
        fetch_proteingym(tmp_path, registry=record().registry, downloader=offline)


def linked():
    info = zipfile.ZipInfo("link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return zipped([(info, "/etc/passwd")])


def damaged_content():
    data = bytearray(zipped([("a.csv", "x" * 1000)], zipfile.ZIP_STORED))
    data[200] ^= 0xFF
    return bytes(data)


def encrypted_flag():
    data = bytearray(GOOD)
    central = data.rindex(b"PK\x01\x02")
    data[central + 8] |= 1
    return bytes(data)


BAD = {
    "truncated": (GOOD[:-30], "damaged"),
    "cut in the middle": (GOOD[: len(GOOD) // 2], "damaged"),
    "empty file": (b"", "damaged"),
    "not a zip": (b"<html>not found</html>", "damaged"),
    "damaged content": (damaged_content(), "damaged .*CRC"),
    "parent": (zipped([("ok.csv", "1"), ("../evil.csv", "1")]), r"'\.\./evil.csv' leads outside"),
    "deep parent": (zipped([("a/../../evil.csv", "1")]), "leads outside"),
    "absolute": (zipped([("/evil.csv", "1")]), "leads outside"),
    "backslash": (zipped([("..\\evil.csv", "1")]), "leads outside"),
    "drive": (zipped([("C:evil.csv", "1")]), "leads outside"),
    "link": (linked(), "'link' is a link"),
    "encrypted": (encrypted_flag(), "encrypted"),
    "twice": (zipped([("a.csv", "1"), ("A.csv", "2")]), "occurs twice"),
}


@pytest.mark.parametrize(("data", "says"), BAD.values(), ids=BAD)
def test_bad_archives_are_refused_and_leave_nothing(tmp_path, data, says):
    cache = tmp_path / "cache"
    with pytest.raises(DataError, match=says):
        fetch(record(archive=data), cache)
    assert {p.name for p in cache.iterdir()} == {ARCHIVE}
    assert not (tmp_path / "evil.csv").exists()
    assert not (cache / "evil.csv").exists()


def test_a_bomb_is_refused_before_unpacking(tmp_path):
    archive = tmp_path / "bomb.zip"
    archive.write_bytes(zipped([("a.csv", "0" * 10_000), ("b.csv", "0" * 10_000)]))
    with pytest.raises(DataError, match="unpacks to 20000 bytes, more than 15000"):
        unzip(archive, tmp_path / "out", max_bytes=15_000)
    assert unzip(archive, tmp_path / "out", max_bytes=20_000).is_dir()


def test_an_existing_folder_is_not_overwritten(tmp_path):
    archive = tmp_path / "a.zip"
    archive.write_bytes(GOOD)
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match="exists"):
        unzip(archive, tmp_path / "out")


def test_a_run_cut_off_while_unpacking_is_done_again(tmp_path, monkeypatch):
    source = record()

    def full(*_):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(zipfile.ZipFile, "extract", full)
        with pytest.raises(OSError, match="disk full"):
            fetch(source, tmp_path)
    folder = fetch(source, tmp_path)
    assert (folder / "DMS_ProteinGym_substitutions" / "X_2020.csv").exists()
    shutil.rmtree(folder)
    assert fetch(source, tmp_path).exists()
    assert download.ARCHIVE in source.calls
