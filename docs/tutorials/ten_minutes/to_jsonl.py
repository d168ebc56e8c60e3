"""The history as JSON lines, as `millrace send` takes it."""

import csv
import json

with open("history.csv", newline="") as history, open("history.jsonl", "w") as lines:
    for row in csv.DictReader(history):
        lines.write(json.dumps({**row, "amount": float(row["amount"])}) + "\n")
