"""What the book prints: test performance as AUC ROC, average precision and card precision at 100; None where it is another model's.

Le Borgne, Siblini, Lebichot, Bontempi: Reproducible Machine Learning for Credit Card Fraud Detection - Practical Handbook (2022).
"""

from __future__ import annotations

from collections.abc import Mapping

Printed = tuple[float | None, float | None, float | None]

# Chapter 3, baseline: trained on 2018-07-25 to 07-31, tested on 08-08 to 08-14.
SINGLE_SPLIT: Mapping[str, Printed] = {
    "logistic regression": (0.871, 0.606, 0.291),
    "tree of depth 2": (0.763, 0.496, 0.241),
    "tree": (0.788, 0.309, 0.243),
    "forest": (0.867, 0.658, 0.287),
    "xgboost": (0.862, 0.639, 0.273),
    "constant": (0.500, 0.007, 0.017),
}

# Chapter 5, model selection: the mean over four test weeks. Its row of a tree takes each figure from the depth chosen for that metric, and
# its row of XGBoost that of the best parameters on the test weeks.
FOUR_FOLDS: Mapping[str, Printed] = {
    "logistic regression": (0.868, 0.623, 0.297),
    "tree of depth 50": (0.797, None, None),
    "tree of depth 3": (None, 0.579, None),
    "tree of depth 5": (None, None, 0.284),
    "forest": (0.870, 0.678, 0.299),
    "xgboost": (0.872, 0.694, 0.304),
}
