"""The words of the page that no result changes."""

INTRODUCTION = """\
# Benchmarks

Made by `python -m benchmarks.report` of [benchmarks/results](../benchmarks/results); changes by hand would be lost. `make bench` runs
Millrace's own rows again, `make bench-peers` the peers', and each row's command that row alone. What it takes to carry more than one
machine can is in [scaling](scaling.md).

Everything ran on the machine named at the end: broker, Redis, workers, generators and readers share its cores, which no production
system would do. So the ratios say more than the absolute figures, and what others did on the machine meanwhile is written beside them."""

METHOD = """\
## How loads are measured

- **Open loop.** Generators send each event when it is due, by the shape of the load alone. If the system stalls, events go on being due,
  and what waits is timed from the moment it was due: no coordinated omission.
- **Latency** is from that moment until a read_committed reader of the output had the answer in hand, over all events after the warm-up;
  quantiles are HdrHistogram's, to three digits, and the histogram is in the result file.
- **Warm-up** is cut by MSER-5 on the mean latencies of slots of 0.1 s: where the standard error of the rest is least. A run whose best
  cut lies beyond its half never became steady, and is invalid. Loads that are not meant to be steady are led in by ten steady seconds.
- **A run is invalid** if the generators were the bottleneck: if they offered less than 99 % because they had fallen behind, or if the p99
  of their own lateness is above 5 ms and above a quarter of the p99 that was measured. Or if an event had no answer, or if others
  took more than a quarter of the machine.
- **The knee** is the highest rate that holds the p99 below a limit for the time given, by bisection until the ends are within 6 %. A rate
  that does not hold is tried once more, so that a neighbour's moment does not decide; one that could not be made decides nothing.
- **CPU** is user and system time of each process between the end of the warm-up and the last due event, by the events due in between.
- **Answers.** Each run asserts that every event was answered exactly once, by a scored event or, if it was poisoned, by a dead letter,
  and holds every feature of some keys against the slow definition (`transforms/slow_windows.py`), in the order of the log.
- **Windows are full**: before the clock starts a worker has drained as many events as the longest window holds, and event time runs so
  fast that it stays that many."""
