"""What needs a GPU, in one call of at most eight minutes: tests, meta-training, and timings.

``python scripts/on_gpu.py OUT`` writes OUT/<step>.json as each step ends; a step that fails says so
in its file and the next one begins. Encoders have random weights: time does not depend on them.
"""

import json
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from cases import made_up_assay, write_esm  # noqa: E402

from mutmeta_lib.learn import InnerLoop  # noqa: E402
from mutmeta_lib.learn.train import MetaTraining, meta_train  # noqa: E402
from mutmeta_lib.models.embed import freeze  # noqa: E402
from mutmeta_lib.records.record import environment  # noqa: E402
from mutmeta_lib.study.case import Where, initial_params, make_predictor  # noqa: E402
from mutmeta_lib.study.run import run  # noqa: E402
from mutmeta_lib.study.study import Study, grid  # noqa: E402
from mutmeta_lib.tasks.tasks import encode_assay  # noqa: E402

STUDY = Study(per_protein=2, cap=150, n_folds=3, seeds=1, shots=(0, 10), meta_steps=40)


def tests() -> dict:
    """The tests that a machine without a GPU skips, and those of the runner."""
    command = [sys.executable, "-m", "pytest", "-q", "-k", "gpu or cuda or device", "tests"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    return {"exit": done.returncode, "told": done.stdout[-1500:]}


def head() -> dict:
    """A study of heads on frozen vectors: the same ranks as on the processor, and the seconds."""
    found, spent = {}, {}
    for device in ("cpu", "cuda"):
        began = time.perf_counter()
        found[device] = run(STUDY, where=Where(device=device)).rows["spearman"]
        spent[device] = time.perf_counter() - began
    return {
        "seconds": spent,
        "largest_difference": float((found["cpu"] - found["cuda"]).abs().max()),
    }


def whole() -> dict:
    """A study in which all of the small encoder learns."""
    study = replace(STUDY, per_protein=1, reads=grid(depth="all"), meta_steps=10, folds=(0,))
    began = time.perf_counter()
    rows = run(study, where=Where(device="cuda")).rows
    return {"seconds": time.perf_counter() - began, "rows": len(rows)}


def steps(layers: int, width: int, start: int, precision: str, first_order: bool) -> dict:
    """Seconds of a meta-step of four tasks, and the most memory, with layers from ``start`` on."""
    with tempfile.TemporaryDirectory() as folder:
        write_esm(Path(folder), layers, width, 20)
        predictor = make_predictor(folder, "sites", device="cuda")
    encoder, assay = predictor.encoder, made_up_assay(120)
    some = replace(assay, variants=assay.variants[:400], scores=assay.scores[:400])
    encoded = encode_assay(some, "separator", encoder.vocabulary, encoder.max_tokens)
    if start:
        predictor, (encoded,) = freeze(predictor, [encoded], start, device="cuda")
    settings = MetaTraining(
        steps=6,
        tasks_per_step=4,
        support=16,
        query=16,
        inner=InnerLoop(0.01, 5, first_order),
        validate_every=6,
        precision=precision,
    )
    torch.cuda.reset_peak_memory_stats()
    begun = initial_params(predictor, 0, "cuda")
    trained = meta_train(predictor, begun, [encoded], settings, seed=0)
    clock = [row["seconds"] for row in trained.history]
    return {
        "seconds_per_step": float(np.median(np.diff(clock))),
        "peak_gb": torch.cuda.max_memory_allocated() / 1e9,
        "last_loss": trained.history[-1]["train_loss"],
    }


STEPS: dict[str, Callable[[], Any]] = {
    "head": head,
    "whole": whole,
    "esm2_8m_last_layer_second_order": lambda: steps(6, 320, 5, "float32", False),
    "esm2_8m_all_second_order": lambda: steps(6, 320, 0, "float32", False),
    "esm2_8m_all_bfloat16": lambda: steps(6, 320, 0, "bfloat16", False),
    "esm2_650m_last_layer_bfloat16": lambda: steps(33, 1280, 32, "bfloat16", False),
    "esm2_650m_all_first_order_bfloat16": lambda: steps(33, 1280, 0, "bfloat16", True),
    "tests": tests,
}


def main(out: Path, wanted: list[str]) -> None:
    """Run the steps, each written as it ends."""
    out.mkdir(parents=True, exist_ok=True)
    told = environment("cuda")
    for name in wanted or STEPS:
        began = time.perf_counter()
        try:
            found = STEPS[name]()
        except Exception:  # the next step may still tell something
            found = {"failed": traceback.format_exc()[-2000:]}
        found |= {"whole_seconds": time.perf_counter() - began, "environment": told}
        (out / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        shown = {key: value for key, value in found.items() if key != "environment"}
        print(name, json.dumps(shown), flush=True)
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
