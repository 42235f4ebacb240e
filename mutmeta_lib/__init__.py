"""MutMeta: few-shot prediction of protein mutation effects with meta-learning.

A reproduction of *Meta-Learning for Cross-Task Generalization in Protein Mutation Property
Prediction* (arXiv 2510.20943). Its rooms import downwards only; from the bottom:
``records``, ``data``, ``tasks``, ``models``, ``learn``, ``study``, ``reproduction``, ``app``.
"""

__version__ = "0.1.0"
