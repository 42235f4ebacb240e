"""Model-agnostic meta-learning (Finn et al. 2017, arXiv 1703.03400) as pure functions.

``inner`` holds the inner loop (adaptation), ``scope`` what it adapts, ``meta`` the meta-gradient,
``learn2learn`` the same meta-gradient computed by the learn2learn package. ``metasgd``,
``reptile``, ``r2d2`` and ``deep_kernel`` are the other members of the family, ``algorithms`` is the
table of all of them; ``lora`` gives an encoder low-rank adapters to adapt.
"""

from mutmeta_lib.learn.inner import InnerLoop, inner_update
from mutmeta_lib.learn.meta import BACKENDS, meta_gradient

__all__ = ["BACKENDS", "InnerLoop", "inner_update", "meta_gradient"]
