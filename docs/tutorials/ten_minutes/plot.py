"""Two pictures of the tutorial: one customer's payments against what is usual for them, and the scores of the test weeks."""

import sys
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import onnxruntime as ort
import polars as pl

from millrace import load_bound

mpl.use("svg")
plt.rcParams.update(
    {
        "svg.hashsalt": "millrace",
        "svg.fonttype": "none",
        "figure.figsize": (8, 3),
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
)
to = Path(sys.argv[1])
names = list(load_bound("pipeline.py").features.names)
test = pl.read_parquet("training/test/*.parquet", hive_partitioning=False)

customer = test.filter(pl.col("label") == 1)["customer_id"][0]
features = pl.read_parquet("features/*/*.parquet", hive_partitioning=False).filter(pl.col("customer_id") == customer)
fraud = features["payment_id"].is_in(test.filter(pl.col("label") == 1)["payment_id"].to_list()).to_numpy()
figure, axes = plt.subplots()
axes.plot(features["event_time"], features["customer_amount_mean_30d"], color="0.6", label="mean of the last 30 days")
axes.scatter(features["event_time"].filter(~fraud), features["amount"].filter(~fraud), s=10, label="payment")
axes.scatter(features["event_time"].filter(fraud), features["amount"].filter(fraud), s=18, color="crimson", label="fraud")
axes.set_ylabel(f"euros, customer {customer}")
axes.legend(frameon=False, ncols=3)
figure.savefig(to / "customer.svg", metadata={"Date": None}, bbox_inches="tight")

session = ort.InferenceSession("models/payments.onnx", providers=["CPUExecutionProvider"])
scores = session.run(None, {"features": test[names].to_numpy().astype(np.float32)})[1][:, 1]
label = test["label"].to_numpy() == 1
figure, axes = plt.subplots()
axes.hist(
    [scores[~label], scores[label]], bins=np.linspace(0, 1, 26).tolist(), label=["genuine", "fraud"], color=["0.6", "crimson"], log=True
)
axes.set_xlabel("score")
axes.set_ylabel("payments of the test weeks")
axes.legend(frameon=False)
figure.savefig(to / "scores.svg", metadata={"Date": None}, bbox_inches="tight")
