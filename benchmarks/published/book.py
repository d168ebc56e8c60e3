"""What the book prints: test performance as (AUC ROC, average precision, card precision at 100).

Le Borgne, Siblini, Lebichot, Bontempi: Reproducible Machine Learning for Credit Card Fraud Detection - Practical Handbook (2022).
"""

from __future__ import annotations

from benchmarks.published.metrics import Performance

# Chapter 3, baseline: trained on 2018-07-25 to 07-31, tested on 08-08 to 08-14.
SINGLE_SPLIT = {
    "logistic regression": Performance(0.871, 0.606, 0.291),
    "tree of depth 2": Performance(0.763, 0.496, 0.241),
    "tree": Performance(0.788, 0.309, 0.243),
    "forest": Performance(0.867, 0.658, 0.287),
    "xgboost": Performance(0.862, 0.639, 0.273),
    "constant": Performance(0.500, 0.007, 0.017),
}

# Chapter 5, model selection: the mean over four test weeks, each metric at the parameters chosen for it.
FOUR_FOLDS = {
    "tree": Performance(0.797, 0.579, 0.284),
    "logistic regression": Performance(0.868, 0.623, 0.297),
    "forest": Performance(0.870, 0.678, 0.299),
    "xgboost": Performance(0.869, 0.687, 0.303),
}
