"""ProteinGym: its files and folders are read as they come, and fetched with their checksums."""

import hashlib
import io
import time
import zipfile
from pathlib import Path

import pytest
import requests
from on_disk import refused, write

from mutmeta_lib.data.folders import read_data_dir
from mutmeta_lib.data.proteingym import ARCHIVE, REFERENCE, fetch_proteingym
from mutmeta_lib.errors import DataError

WT = "MKTAYIAKQR"
CSV = "mutant,mutated_sequence,DMS_score,DMS_score_bin\nK2R,MRTAYIAKQR,-0.5,0\n"
LISTED = "DMS_id,UniProt_ID,target_seq,coarse_selection_type,jo\n"


@pytest.fixture
def folder(tmp_path):
    entries = f"P_2020,P_X,{WT},Stability,10.1/x\nTADBP_HUMAN_Bolognesi_2019,P_X,{WT},Binding,\n"
    write(tmp_path / "DMS_substitutions.csv", LISTED + entries)
    for name in ("P_2020", "TADBP_HUMAN_Bolognesi_2019"):
        write(tmp_path / f"DMS/{name}.csv", CSV)
    return tmp_path


def test_bad_entries_of_the_reference_file(tmp_path):
    write(tmp_path / "P_2020.csv", CSV)
    entries = {"target_seq": "P_2020,,MK-T,Binding", "coarse_selection_type": "P_2020,,MKT,Taste"}
    for column, entry in entries.items():
        path = write(tmp_path / "DMS_substitutions.csv", f"{LISTED}{entry},\n")
        with refused("'-' at position 3|'Taste' is not a known selection type", path, 2, column):
            read_data_dir(tmp_path)


def test_a_folder_of_proteingym(folder, recwarn):
    one, other = read_data_dir(folder)
    assert (one.id, one.protein, one.property) == ("P_2020", "P_X", "stability")
    assert (one.scores.tolist(), one.sign, one.source) == ([-0.5], "higher = better", "10.1/x")
    assert (other.property, other.sign) == ("fitness", "as in ProteinGym: higher = more toxic")
    assert not recwarn.list
    write(folder / "again/P_2020.csv", CSV)
    with pytest.raises(DataError, match="another file has the same name"):
        read_data_dir(folder)


def test_what_the_reference_file_does_not_name_is_told_and_not_read(folder):
    write(folder / "DMS_indels.csv", LISTED)
    write(folder / "DMS_indels/Q_2021_indels.csv", "mutated_sequence,DMS_score\nMK,1\n")
    write(folder / "__MACOSX/DMS/._P_2020.csv", "\0")
    with pytest.warns(UserWarning, match="does not name DMS_indels.csv, Q_2021_indels.csv; not"):
        assert len(read_data_dir(folder)) == 2


def zipped(*names):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, CSV)
    return buffer.getvalue()


GOOD = zipped("DMS_ProteinGym_substitutions/P_2020.csv")


def md5(data):
    return f"md5:{hashlib.md5(data).hexdigest()}"


@pytest.fixture
def fetch(tmp_path, monkeypatch):
    """Fetch from a stand-in for the Zenodo record, which notes what it handed out."""
    monkeypatch.setattr(time, "sleep", lambda _: None)  # pooch waits between tries
    text = f"{LISTED}P_2020,P_X,{WT},Stability,\n".encode()

    def fetched(archive=GOOD, **options):
        def hand_out(url, output_file, pooch):
            fetched.calls.append(url.rsplit("/", 1)[-1])
            Path(output_file).write_bytes({ARCHIVE: archive, REFERENCE: text}[fetched.calls[-1]])

        record = {"registry": {ARCHIVE: md5(archive), REFERENCE: md5(text)}, "downloader": hand_out}
        return fetch_proteingym(tmp_path / "cache", **record | options)

    fetched.calls = []
    return fetched


def test_a_good_archive_is_fetched_once_and_read(fetch):
    (assay,) = read_data_dir(fetch())
    assert (assay.id, assay.property, assay.scores.tolist()) == ("P_2020", "stability", [-0.5])
    assert fetch() == fetch()
    assert fetch.calls == [ARCHIVE, REFERENCE]


def test_a_record_without_the_reference_file_warns(fetch):
    with pytest.warns(UserWarning, match="reference_files"):
        folder = fetch(registry={ARCHIVE: md5(GOOD)})
    assert (folder / "DMS_ProteinGym_substitutions" / "P_2020.csv").read_text() == CSV


def test_what_is_not_the_record_is_refused_and_nothing_of_it_kept(fetch, tmp_path):
    for registry, says in [({ARCHIVE: md5(b"")}, "hash"), ({"other.zip": "md5:0"}, ARCHIVE)]:
        with pytest.raises(DataError, match=f"not as expected .*{says}"):
            fetch(registry=registry)
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]
    with pytest.raises(DataError, match=r"not as expected .*zip"):
        fetch(GOOD[:-30])
    assert not list(tmp_path.rglob("*.csv"))


def test_no_network_is_told(fetch, monkeypatch):
    def offline(*_, **__):
        raise requests.ConnectionError("no route")

    monkeypatch.setattr(requests, "get", offline)
    for options in ({"registry": None}, {"downloader": offline}):
        with pytest.raises(DataError, match=r"could not be downloaded \(no route\)"):
            fetch(**options)


def test_nothing_is_unpacked_outside_the_folder(fetch, tmp_path):
    names = ["../evil.csv", "a/../../evil.csv", str(tmp_path / "evil.csv"), "..\\evil.csv"]
    folder = fetch(zipped(*names))
    assert not set(tmp_path.rglob("*evil.csv")) - set(folder.rglob("*"))


def test_a_run_cut_off_while_unpacking_is_done_again(fetch, monkeypatch):
    def full(self, path):
        (Path(path) / "half.csv").touch()
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(zipfile.ZipFile, "extractall", full)
        with pytest.raises(OSError, match="disk full"):
            fetch()
    assert [assay.id for assay in read_data_dir(fetch())] == ["P_2020"]
    assert not list(fetch().rglob("half.csv"))
