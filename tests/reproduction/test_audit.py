import pytest
from release_copy import WILD, backwards, write_table

from mutmeta_lib.app.experiments import EXPERIMENTS
from mutmeta_lib.errors import DataError
from mutmeta_lib.records.record import read_record, write_record
from mutmeta_lib.reproduction.audit import audit_experiment
from mutmeta_lib.reproduction.release import LISTED, read_release

LETTERS = "ACDEFGHI"


@pytest.fixture
def release(tmp_path):
    folder = tmp_path / "copy"
    domain = [(*backwards(p, "W"), 0.1 * p, "domain", "deltag_t") for p in range(1, 9)]
    literature = [(WILD, [f"K2{a}"], i - 3.5, "fireprot", "ddG") for i, a in enumerate(LETTERS)]
    write_table(folder, "combined_ddG_train", [*domain[:6], *literature[:6]], "ddG")
    write_table(folder, "combined_ddG_test", [*domain[6:], *literature[6:]], "ddG")
    melting = [(WILD, [f"K2{a}"], 3.5 - i, "fireprot", "dTm") for i, a in enumerate(LETTERS)]
    write_table(folder, "fireprot_dTm_test", melting, "dTm")
    tail = [(WILD, [f"T3{a}"], 0.1 * i, "soluprotmut", "s") for i, a in enumerate(LETTERS)]
    tail.append((WILD, ["M1L", "A4G"], 24.0, "soluprotmut", "s"))
    write_table(folder, "soluprotmut_solubility_test", tail, "solubility_change")
    return folder


def test_a_partial_copy_gives_a_record_that_says_what_was_missing(release, tmp_path):
    told = []
    record = audit_experiment(
        release_dir=str(release), sizes=[2, 4], draws=50, profile="quick", progress=told.append
    )
    assert told
    assert record.experiment == "audit"
    assert EXPERIMENTS["audit"] is audit_experiment
    files = read_release(release)
    assert record.data == {id: file.sha256 for id, file in files.items()}
    assert set(record.table("missing")["table"]) == set(LISTED) - set(files)
    assert record.parameters["release_dir"] == "copy"
    write_record(record, tmp_path / "audit.json")
    assert read_record(tmp_path / "audit.json") == record


def test_numbers_are_those_of_the_tables(release):
    record = audit_experiment(release_dir=str(release), sizes=[4], draws=200)
    numbers = record.numbers
    assert numbers["combined_ddG_train_backwards"]["value"] == 6
    assert numbers["combined_ddG_wild_type_rows"]["value"] == 100
    assert numbers["fireprot_dTm_test_in_initial"]["value"] == 100
    assert numbers["fireprot_dTm_test_agreement"]["value"] == -1
    assert numbers["solubility_largest"]["value"] == 24
    assert numbers["solubility_far_rows"]["value"] == 1
    assert numbers["solubility_far_share"]["value"] > 80
    assert numbers["solubility_several"]["value"] == 1
    queries = record.table("queries").set_index("table")
    assert set(queries.index) == {"fireprot_dTm_test", "soluprotmut_solubility_test"}
    median = numbers["soluprotmut_solubility_test_4_error"]["value"]
    assert median == pytest.approx(queries.loc["soluprotmut_solubility_test", "q50"], rel=1e-4)


def test_the_same_seed_draws_the_same_rows(release):
    made = [audit_experiment(release_dir=str(release), sizes=[4], draws=20) for _ in range(2)]
    assert made[0].tables == made[1].tables
    assert made[0].hash == made[1].hash
    other = audit_experiment(release_dir=str(release), sizes=[4], draws=20, seed=1)
    assert other.tables["queries"] != made[0].tables["queries"]


def test_sound_assays_enter_the_record_and_its_hashes(release, tmp_path):
    sound = tmp_path / "sound"
    (sound / "stability").mkdir(parents=True)
    (sound / "MANIFEST.csv").write_text(
        "id,property,protein,target_seq,n_proteins,score_units,sign,doi\n"
        f"domain,stability,D,{WILD},1,kcal/mol,higher = better,\n"
    )
    rows = "".join(f"{WILD[p - 1]}{p}W,{p}\n" for p in range(1, 9))
    (sound / "stability" / "domain.csv").write_text("mutant,score\n" + rows)
    record = audit_experiment(
        release_dir=str(release), reference_dir=str(sound), sizes=[4], draws=20
    )
    assert "domain" in record.data
    assert record.numbers["reference_backwards_rows"]["value"] == 8
    assert record.numbers["reference_backwards_wild_types"]["value"] == 1
    table = record.table("reference").set_index("table")
    assert table.loc["combined_ddG_train", "spearman"] == 1


def test_a_folder_that_is_no_copy_is_refused(tmp_path):
    with pytest.raises(DataError, match="no table"):
        audit_experiment(release_dir=str(tmp_path))
