"""What it takes to carry more than one machine can, on paper: ``python -m benchmarks.scaling`` makes docs/scaling.md of the results.

A small model. What a process costs has a part for each event and a part for each batch, since every batch is a transaction:

    cost of an event = event + batch / records in a batch

Both are solved from two measurements of one result, ``load-constant``: its drain, with large batches, and its steady run, with small
ones. A steady worker begins its next batch as soon as the last one lets it, so that batches take `cycle` seconds however few events
they hold:

    records in a batch = rate of the worker x cycle       at most `worker.batch_records`

What a key costs in memory comes from ``growth``. The model is then held against measurements that it was not made of, and its errors
stand on the page, before it is asked about loads that nobody measured.
"""
