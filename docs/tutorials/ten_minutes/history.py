"""What the tutorial begins with: ninety days of payments as CSV, what became of them, and today's payments."""

import csv
import json
import random
from datetime import UTC, datetime, timedelta
from typing import Any

START = datetime(2026, 1, 1, tzinfo=UTC)
DAYS, PAYMENTS_A_DAY, CUSTOMERS = 90, 200, 150
FIELDS = ("payment_id", "event_time", "customer_id", "amount")

chance = random.Random(0)
usual = {f"C{number:03}": chance.uniform(5, 80) for number in range(CUSTOMERS)}
stolen = {customer: chance.randrange(DAYS) for customer in usual}  # the first of two days on which somebody else pays


def payments(day: int) -> list[tuple[dict[str, Any], bool]]:
    """A day's payments in order, and whether each is a fraud."""
    seconds = sorted(chance.randrange(86_400) for _ in range(PAYMENTS_A_DAY))
    found = []
    for number, second in enumerate(seconds):
        customer = chance.choice(list(usual))
        fraud = stolen[customer] <= day < stolen[customer] + 2
        amount = round(usual[customer] * chance.lognormvariate(0, 0.4) * (2.5 if fraud else 1), 2)
        time = START + timedelta(days=day, seconds=second)
        found.append(({"payment_id": f"P{day:02}-{number:03}", "event_time": time, "customer_id": customer, "amount": amount}, fraud))
    return found


with open("history.csv", "w", newline="") as history, open("reports.csv", "w", newline="") as reports:
    rows, labels = csv.DictWriter(history, FIELDS), csv.writer(reports)
    rows.writeheader()
    labels.writerow(("payment_id", "label", "known_at"))
    for day in range(DAYS):
        for payment, fraud in payments(day):
            rows.writerow({**payment, "event_time": payment["event_time"].isoformat()})
            if fraud:  # the customer calls some days later
                known: datetime = payment["event_time"] + timedelta(days=chance.uniform(1, 6))
                labels.writerow((payment["payment_id"], 1, known.isoformat()))

with open("today.jsonl", "w") as today:
    for payment, _ in payments(DAYS):
        today.write(json.dumps({**payment, "event_time": payment["event_time"].isoformat()}) + "\n")
