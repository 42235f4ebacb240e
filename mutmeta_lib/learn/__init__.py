"""Model-agnostic meta-learning (Finn et al. 2017, arXiv 1703.03400) as pure functions.

`inner` adapts, `gradients` differentiates through it, `algorithms` is the table of the family and
`train` its one outer loop; `start` uses what was trained, `methods` is all that can be evaluated.
"""

from mutmeta_lib.learn.gradients import BACKENDS, meta_gradient
from mutmeta_lib.learn.inner import InnerLoop, inner_update

__all__ = ["BACKENDS", "InnerLoop", "inner_update", "meta_gradient"]
