"""MutMeta: few-shot prediction of protein mutation effects with meta-learning.

A reproduction of *Meta-Learning for Cross-Task Generalization in Protein Mutation Property
Prediction* (arXiv 2510.20943). ``import mutmeta_lib as mm`` offers the names below, each loaded
when it is first asked for. The rooms import downwards only; from the bottom: ``records``, ``data``,
``tasks``, ``models``, ``learn``, ``ranking``, ``study``, ``reproduction``, ``app``.

>>> import mutmeta_lib as mm
>>> mm.parse_variant("p.Ala24Gly")
(Substitution(position=24, wild_type='A', mutant='G'),)
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_NAMES = {
    "Assay": "mutmeta_lib.data.assays",
    "read_table": "mutmeta_lib.data.assays",
    "read_data_dir": "mutmeta_lib.data.folders",
    "parse_variant": "mutmeta_lib.data.variants",
    "format_variant": "mutmeta_lib.data.variants",
    "single_variants": "mutmeta_lib.data.variants",
    "encode": "mutmeta_lib.tasks.encodings",
    "encode_assay": "mutmeta_lib.tasks.tasks",
    "draw_task": "mutmeta_lib.tasks.tasks",
    "load_encoder": "mutmeta_lib.models.encoder",
    "InnerLoop": "mutmeta_lib.learn.inner",
    "inner_update": "mutmeta_lib.learn.inner",
    "meta_gradient": "mutmeta_lib.learn.gradients",
    "MetaTraining": "mutmeta_lib.learn.train",
    "meta_train": "mutmeta_lib.learn.train",
    "load_start": "mutmeta_lib.learn.start",
    "load_pretrained": "mutmeta_lib.learn.start",
    "METHODS": "mutmeta_lib.learn.methods",
    "fit": "mutmeta_lib.ranking.model",
    "load_ranking": "mutmeta_lib.ranking.model",
    "Study": "mutmeta_lib.study.study",
    "grid": "mutmeta_lib.study.study",
    "Where": "mutmeta_lib.study.case",
    "recorded": "mutmeta_lib.study.run",
    "evaluate": "mutmeta_lib.study.evaluate",
    "estimate": "mutmeta_lib.study.estimates",
    "contrast": "mutmeta_lib.study.estimates",
}
__all__ = [*_NAMES, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_NAMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
