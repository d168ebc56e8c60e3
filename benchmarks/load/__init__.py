"""The load harness: a pipeline under a load that does not wait for it, and numbers that can be believed (docs/benchmarks.md).

    generators ──▶ input topic ──▶ workers ──▶ output, dead letters ──▶ reader
     open loop                        │                                   │
     own lateness                   Redis                    latency from the moment each event was due
          └───────────────── watch: CPU, memory, bytes, a second at a time ─────────────────┘

Run it with ``millrace bench load PIPELINE`` or ``python -m benchmarks.load PIPELINE``.
"""
