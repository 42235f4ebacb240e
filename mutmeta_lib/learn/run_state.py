"""Everything of a meta-training run that changes from step to step, saved and put back whole."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import numpy as np
import torch

from mutmeta_lib.errors import DataError
from mutmeta_lib.learn.distributed import ALONE, Ranks
from mutmeta_lib.learn.training_settings import MetaTraining
from mutmeta_lib.models.predictor import Params, Predictor
from mutmeta_lib.records import store
from mutmeta_lib.records.files import plain
from mutmeta_lib.tasks.tasks import EncodedAssay


@dataclass(eq=False)
class RunState:
    """Where a run stands: the meta-step to come is ``len(history) + 1``.

    ``current`` are the parameters that ``optimiser`` moves, ``best`` those with the lowest
    validation loss so far, found at ``best_step``. ``rng`` draws the tasks.
    """

    current: Params
    optimiser: torch.optim.Adam
    rng: np.random.Generator
    best: Params
    best_step: int
    best_loss: float = float("inf")
    history: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0

    def params(self) -> Params:
        """The current parameters without a gradient; they share its memory."""
        return {name: value.detach() for name, value in self.current.items()}


def begin(params: Params, settings: MetaTraining, rng: np.random.Generator) -> RunState:
    """The state before the first step. ``params`` are copied; until a validation they are best."""
    current = {name: value.detach().clone() for name, value in params.items()}
    for value in current.values():
        value.requires_grad_(True)
    optimiser = torch.optim.Adam(current.values(), lr=settings.meta_lr)
    return RunState(current, optimiser, rng, current, settings.steps)


def run_identity(
    predictor: Predictor,
    params: Params,
    assays: Sequence[EncodedAssay],
    settings: MetaTraining,
    seed: int,
    validation: Sequence[EncodedAssay],
) -> dict:
    """What a run must share with a checkpoint to go on from it, as plain JSON values."""
    choices = {f.name: getattr(predictor, f.name) for f in fields(predictor) if f.name != "encoder"}
    return {
        "settings": asdict(settings),
        "seed": seed,
        "data": sorted(a.assay.sha256 for a in assays),
        "validation": sorted(a.assay.sha256 for a in validation),
        "encoder": predictor.encoder.sha256,
        "start": store.checksum(params),
        "predictor": plain(choices),
        "encodings": sorted({a.encoding for a in assays}),
    }


def save(state: RunState, checkpoint: str | Path, identity: dict) -> None:
    """Write the state to a checkpoint file, and keep the one before it."""
    tensors = {f"params/{name}": value for name, value in state.current.items()}
    tensors |= {f"best/{name}": value for name, value in state.best.items()}
    for name, value in state.current.items():
        for key, moment in state.optimiser.state[value].items():
            tensors[f"adam/{key}/{name}"] = moment
    # Copies, as until a validation the best parameters share their memory with the current ones.
    tensors = {name: value.detach().clone() for name, value in tensors.items()}
    kept = {
        "identity": identity,
        "rng": state.rng.bit_generator.state,
        "history": state.history,
        "seconds": state.seconds,
        "best_loss": state.best_loss,
        "best_step": state.best_step,
    }
    store.save(checkpoint, tensors, kept, keep_previous=True)


def restore(state: RunState, checkpoint: str | Path, identity: dict, ranks: Ranks = ALONE) -> None:
    """Put the newest checkpoint's content in the place of a fresh state; none leaves it fresh.

    Of several ranks the first reads the file, and the others are sent what it holds.

    Raises:
        DataError: the checkpoint is that of another run, or cannot be read.

    """
    found = ranks.from_first(store.load_newest(checkpoint) if ranks.first else None)
    if found is None:
        return
    tensors, kept = found
    if kept.get("identity") != identity:
        raise DataError(
            "the checkpoint was written by a run with other settings, data or start",
            "choose another checkpoint file, or delete this one and those before it",
            file=checkpoint,
        )
    _restore_tensors(state, tensors)
    state.rng.bit_generator.state = kept["rng"]
    state.history, state.seconds = kept["history"], kept["seconds"]
    state.best_loss, state.best_step = kept["best_loss"], kept["best_step"]
    if state.best_loss < float("inf"):
        device = next(iter(state.current.values())).device
        state.best = {name: tensors[f"best/{name}"].to(device) for name in state.current}


def _restore_tensors(state: RunState, tensors: Params) -> None:
    """Parameters and Adam's moments."""
    with torch.no_grad():
        for name, value in state.current.items():
            value.copy_(tensors[f"params/{name}"])
            moments = {
                key.split("/")[1]: moment
                for key, moment in tensors.items()
                if key.startswith("adam/") and key.split("/", 2)[2] == name
            }
            state.optimiser.state[value] = {
                key: moment.to(value.device if "exp" in key else "cpu")
                for key, moment in moments.items()
            }
