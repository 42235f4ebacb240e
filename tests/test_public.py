"""The public names: all there, documented, and loaded only when they are asked for."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import mutmeta_lib as mm


@pytest.mark.parametrize("name", [name for name in mm.__all__ if name != "__version__"])
def test_a_public_name_is_there_and_says_what_it_is(name):
    found = getattr(mm, name)
    assert name == "METHODS" or found.__doc__
    assert name in dir(mm)
    with pytest.raises(AttributeError, match=f"has no attribute 'my_{name}'"):
        getattr(mm, f"my_{name}")


@pytest.mark.parametrize(
    ("imported", "unwanted"),
    [
        ("mutmeta_lib", "torch pandas transformers matplotlib papermill"),
        # Bars for notebooks, which pooch and huggingface_hub load, and which warn of ipywidgets.
        ("mutmeta_lib.study.run, mutmeta_lib.data.folders", "tqdm.auto"),
    ],
)
def test_nothing_is_loaded_before_it_is_asked_for(imported, unwanted):
    code = f"import sys, {imported}; print([m for m in {unwanted.split()} if m in sys.modules])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


def test_the_example_of_the_readme_goes_from_a_csv_to_predictions(tmp_path, monkeypatch, capsys):
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    example = re.search(r"```python\n(.*?)```", readme, re.S)[1]
    assert len([line for line in example.splitlines() if line]) <= 10
    monkeypatch.chdir(tmp_path)
    Path("scores.csv").write_text("mutant,score\nK2R,0.5\nT3G,-1\nA4G,0.1\nY5F,0.9\n")
    shown = {}
    exec(example, shown)
    assert len(shown["ranked"]) == 19 * 10
    assert shown["ranked"]["prediction"].nunique() > 100
    assert Path("report.html").exists()
    assert "prediction" in capsys.readouterr().out
