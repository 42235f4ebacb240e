"""pyproject.toml, the pins and environment.yml describe one environment."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import distributions, metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from mutmeta_lib.learn.learn2learn import INSTALL

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text())
DECLARED = {
    canonicalize_name(requirement.name): requirement
    for group in [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    for requirement in map(Requirement, group)
}


def pins(name):
    """Read a requirements file whose every requirement must be ``name==version``."""
    lines = re.findall(r"^\w[^#\s]*", (ROOT / name).read_text(), re.M)
    names, versions = zip(*(line.split("==") for line in lines), strict=True)
    assert len(set(names)) == len(names)
    return dict(zip(map(canonicalize_name, names), map(Version, versions), strict=True))


PINS, CONSTRAINTS, LEARN2LEARN = (
    pins(f"requirements{kind}.txt") for kind in ("", "-constraints", "-learn2learn")
)


def test_pins_are_the_declared_dependencies_within_their_ranges_and_constraints_the_others():
    assert set(PINS) == set(DECLARED)
    assert [name for name in PINS if not DECLARED[name].specifier.contains(PINS[name])] == []
    assert not set(PINS) & set(CONSTRAINTS)
    written = (ROOT / "requirements.txt").read_text()
    assert "-c requirements-constraints.txt" in written
    torch = Requirement(re.search(r"^torch.*$", written, re.M)[0]).specifier
    for local in ("cpu", "cu126", "cu130"):
        assert torch.contains(f"{PINS['torch']}+{local}")


def test_every_pin_takes_the_oldest_python_that_is_promised():
    """Debian 12 has Python 3.11.2, which soupsieve 4 refuses: the first command failed there."""
    oldest = next(iter(SpecifierSet(PROJECT["requires-python"]))).version + ".0"
    asked = {name: SpecifierSet(metadata(name).get("Requires-Python", "")) for name in installed()}
    assert [name for name, specifier in asked.items() if not specifier.contains(oldest)] == []


def installed():
    """The pinned packages that are here: what a machine leaves out it need not take."""
    here = {canonicalize_name(one.metadata["Name"]) for one in distributions()}
    return here & {*PINS, *CONSTRAINTS}


def test_conda_brings_python_and_the_tools_and_installs_the_same_pins():
    brought = dict(re.split("[=<>]+|$", d)[:2] for d in CONDA["dependencies"] if isinstance(d, str))
    assert SpecifierSet(PROJECT["requires-python"]).contains(brought["python"])
    assert {"pip", "make", "compilers"} <= set(brought)
    (pip,) = [d["pip"] for d in CONDA["dependencies"] if isinstance(d, dict)]
    assert pip == ["-r requirements.txt", "-e ."]


def test_binder_finds_environment_yml_with_a_python_it_knows_and_the_repository_around_it():
    """By repo2docker's rules: what it would take first, x.y, local paths that stage all files."""
    first = ("binder", ".binder", "Dockerfile", "environment.yaml", "install.R", "Project.toml")
    assert [name for name in first if (ROOT / name).exists()] == []
    python, *_, pip = CONDA["dependencies"]
    assert re.fullmatch(r"python=3\.\d+", python)
    assert all(line.startswith(("-r ", "-e .")) for line in pip["pip"])
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    assert config["repository"]["url"] == PROJECT["urls"]["Repository"]
    assert {"binderhub_url", "colab_url"} < set(config["launch_buttons"])


def test_make_lab_opens_the_folder_of_the_notebooks():
    # Asked by another make, as `make test` is, it would also tell which folder it is in.
    command = ["make", "-n", "--no-print-directory", "-o", ".venv/.installed", "lab"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert told.split() == [".venv/bin/jupyter", "lab", "--ServerApp.root_dir=notebooks"]


def test_learn2learn_is_pinned_and_installed_alike_everywhere():
    ((package, version),) = LEARN2LEARN.items()
    assert package == "learn2learn"
    for name in ["environment.yml", "requirements-learn2learn.txt", "Makefile"]:
        text = (ROOT / name).read_text()
        assert INSTALL in text, name
        pinned = set(re.findall(r"learn2learn==([\w.]+)", text))
        assert pinned == (set() if name == "Makefile" else {str(version)}), name


@pytest.mark.parametrize("required", ["0", "1"])
def test_a_failed_build_of_learn2learn_costs_a_sentence_or_is_an_error_where_required(
    tmp_path, required
):
    for path in [ROOT / "Makefile", ROOT / "pyproject.toml", *ROOT.glob("requirements*.txt")]:
        shutil.copy(path, tmp_path)
    (tmp_path / "mutmeta_lib").mkdir()
    python = tmp_path / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(  # everything can be installed but learn2learn
        '#!/bin/sh\ncase "$*" in\n'
        "*requirements-learn2learn.txt) echo error: command failed; exit 1;;\n"
        f'-c*) exec "{sys.executable}" "$@";;\nesac\n'
    )
    python.chmod(0o755)
    given = {"MUTMETA_REQUIRE_LEARN2LEARN": required, "CC": "true", "MAKEFLAGS": ""}
    options = {"env": os.environ | given, "capture_output": True, "text": True, "cwd": tmp_path}
    done = subprocess.run(["make", f"PYTHON={sys.executable}", "env"], **options)
    assert (done.returncode != 0) == (required == "1")
    assert (tmp_path / ".venv/.installed").exists() == (required == "0")
    assert "command failed" in (tmp_path / ".venv/learn2learn.log").read_text()
    told = ["error: command failed", "learn2learn was not installed"]
    assert told[required == "0"] in done.stderr


def test_the_citation_knows_the_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == PROJECT["version"]


def test_the_text_that_each_seeded_fault_replaces_stands_in_its_file_once():
    said = "import faults; print(*filter(None, map(faults.moved, faults.FAULTS)), sep='\\n')"
    how = {"cwd": ROOT / "scripts", "capture_output": True, "text": True, "check": True}
    assert subprocess.run([sys.executable, "-c", said], **how).stdout.strip() == ""
