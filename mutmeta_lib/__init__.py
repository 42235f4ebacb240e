"""MutMeta: few-shot prediction of protein mutation effects with meta-learning.

A reproduction of *Meta-Learning for Cross-Task Generalization in Protein Mutation Property
Prediction* (arXiv 2510.20943). Modules are small and import downwards only; read them in this
order: ``mutations``, ``assays``, ``encoding``, ``encoders``, ``tasks``, ``predictor``, ``maml``,
``evaluate``.
"""

__version__ = "0.1.0"
