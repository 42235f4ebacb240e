"""pyproject.toml, the pins and environment.yml describe one environment."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
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


def pins(name: str) -> dict[str, Version]:
    """Read a requirements file whose every requirement must be ``name==version``."""
    found: dict[str, Version] = {}
    for line in (ROOT / name).read_text().splitlines():
        text = line.split("#")[0].strip()
        if not text or text.startswith("-"):
            continue
        requirement = Requirement(text.split(" --")[0])
        (specifier,) = requirement.specifier
        assert specifier.operator == "==", f"{name}: {text} is not an exact pin"
        key = canonicalize_name(requirement.name)
        assert key not in found, f"{name}: {key} is pinned twice"
        found[key] = Version(specifier.version)
    return found


PINS = pins("requirements.txt")
CONSTRAINTS = pins("requirements-constraints.txt")
LEARN2LEARN = pins("requirements-learn2learn.txt")


def test_pins_are_the_declared_dependencies_within_their_ranges_and_constraints_the_others():
    assert set(PINS) == set(DECLARED)
    assert [name for name in PINS if not DECLARED[name].specifier.contains(PINS[name])] == []
    assert not set(PINS) & set(CONSTRAINTS)
    assert "-c requirements-constraints.txt" in (ROOT / "requirements.txt").read_text()


@pytest.mark.parametrize("local", ["cpu", "cu126", "cu130"])
def test_torch_pin_admits_local_builds(local):
    text = re.search(r"^torch.*$", (ROOT / "requirements.txt").read_text(), re.M).group(0)
    assert Requirement(text).specifier.contains(f"{PINS['torch']}+{local}")


def test_conda_brings_python_and_the_tools_and_installs_the_same_pins():
    brought = dict(re.split("[=<>]+|$", d)[:2] for d in CONDA["dependencies"] if isinstance(d, str))
    assert SpecifierSet(PROJECT["requires-python"]).contains(brought["python"])
    assert {"pip", "make", "compilers"} <= set(brought)
    (pip,) = [d["pip"] for d in CONDA["dependencies"] if isinstance(d, dict)]
    assert pip == ["-r requirements.txt", "-e ."]


def test_learn2learn_is_pinned_and_installed_alike_everywhere():
    ((package, version),) = LEARN2LEARN.items()
    assert package == "learn2learn"
    for name in ["environment.yml", "requirements-learn2learn.txt", "Makefile"]:
        text = (ROOT / name).read_text()
        assert INSTALL in text, name
        pinned = set(re.findall(r"learn2learn==([\w.]+)", text))
        assert pinned == (set() if name == "Makefile" else {str(version)}), name


def make_env(folder: Path, *goals: str, required: str = "0") -> subprocess.CompletedProcess:
    """`make` where everything can be installed but learn2learn."""
    for name in ["Makefile", "pyproject.toml", *map(str, ROOT.glob("requirements*.txt"))]:
        shutil.copy(ROOT / name, folder)
    (folder / "mutmeta_lib").mkdir(exist_ok=True)
    (folder / ".venv/bin").mkdir(parents=True, exist_ok=True)
    python = folder / ".venv/bin/python"
    python.write_text(
        '#!/bin/sh\ncase "$*" in\n'
        "*requirements-learn2learn.txt) echo error: command failed; exit 1;;\n"
        f'-c*) exec "{sys.executable}" "$@";;\nesac\n'
    )
    python.chmod(0o755)
    return subprocess.run(
        ["make", "--no-print-directory", f"PYTHON={sys.executable}", *goals],
        cwd=folder,
        env=os.environ | {"MUTMETA_REQUIRE_LEARN2LEARN": required, "CC": "true", "MAKEFLAGS": ""},
        capture_output=True,
        text=True,
    )


def test_a_failed_build_of_learn2learn_costs_a_sentence(tmp_path):
    done = make_env(tmp_path, "env")
    assert done.returncode == 0
    assert re.fullmatch(
        r"learn2learn was not installed: .*, see \.venv/learn2learn\.log; .* are skipped, "
        r"everything else runs, and 'make learn2learn' tries again\.\n",
        done.stderr,
    )
    assert "command failed" in (tmp_path / ".venv/learn2learn.log").read_text()
    assert (tmp_path / ".venv/.installed").exists()
    again = make_env(tmp_path, "learn2learn")
    assert again.returncode != 0
    assert again.stderr.startswith(done.stderr)


def test_a_failed_build_of_learn2learn_is_an_error_where_it_is_required(tmp_path):
    done = make_env(tmp_path, "env", required="1")
    assert done.returncode != 0
    assert "error: command failed" in done.stderr
    assert not (tmp_path / ".venv/.installed").exists()


def test_changelog_and_citation_know_the_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == PROJECT["version"]
