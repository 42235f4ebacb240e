"""Everything of a meta-training run that changes from step to step, saved and put back whole."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from mutmeta_lib.errors import DataError
from mutmeta_lib.models.predictor import Params, Predictor
from mutmeta_lib.records import store
from mutmeta_lib.records.files import plain
from mutmeta_lib.tasks.tasks import EncodedAssay


@dataclass(eq=False)
class RunState:
    """Where a run stands; ``best`` had the lowest validation loss, at ``best_step`` if not 0."""

    current: Params
    optimiser: torch.optim.Adam
    rng: np.random.Generator
    best: Params
    best_step: int = 0
    best_loss: float = float("inf")
    history: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0

    @classmethod
    def begin(cls, params: Params, lr: float, rng: np.random.Generator) -> Self:
        """The state before the first step, with a copy of ``params``."""
        current = {n: value.detach().clone().requires_grad_() for n, value in params.items()}
        return cls(current, torch.optim.Adam(current.values(), lr=lr), rng, current)

    @property
    def step(self) -> int:
        """The meta-step to come."""
        return len(self.history) + 1

    def params(self) -> Params:
        """The current parameters without a gradient; they share its memory."""
        return {name: value.detach() for name, value in self.current.items()}

    def save(self, checkpoint: str | Path, identity: dict) -> None:
        """Write the state to a checkpoint file."""
        tensors = {f"params/{name}": value for name, value in self.current.items()}
        tensors |= {f"best/{name}": value for name, value in self.best.items()}
        for name, value in self.current.items():
            for key, moment in self.optimiser.state[value].items():
                tensors[f"adam/{key}/{name}"] = moment
        # Copies: till a validation the best parameters share memory with the current ones.
        tensors = {name: value.detach().clone() for name, value in tensors.items()}
        kept = {key: getattr(self, key) for key in ("history", "seconds", "best_loss", "best_step")}
        kept |= {"identity": identity, "rng": self.rng.bit_generator.state}
        store.save(checkpoint, tensors, kept)

    def restore(self, checkpoint: str | Path, identity: dict) -> None:
        """Put the checkpoint, if there is one, in the place of a fresh state."""
        if (found := store.load_newest(checkpoint)) is None:
            return
        tensors, kept = found
        if kept.pop("identity", None) != identity:
            told = "the checkpoint was written by a run with other settings, data or start"
            mend = "choose another checkpoint file, or delete this one"
            raise DataError(told, mend, file=checkpoint)
        self.rng.bit_generator.state = kept.pop("rng")
        vars(self).update(kept)
        for name, value in self.current.items():
            value.data.copy_(tensors[f"params/{name}"])
            self.optimiser.state[value] = {
                key: tensors[f"adam/{key}/{name}"].to("cpu" if key == "step" else value.device)
                for key in ("step", "exp_avg", "exp_avg_sq")
            }
        if self.best_step:
            best = {name: tensors[f"best/{name}"] for name in self.current}
            self.best = {name: value.to(self.current[name].device) for name, value in best.items()}


def run_identity(
    predictor: Predictor,
    params: Params,
    assays: Sequence[EncodedAssay],
    settings: Any,
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
