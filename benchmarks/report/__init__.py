"""The page of results: ``python -m benchmarks.report`` makes docs/benchmarks.md, and its plots, of benchmarks/results/*.json.

Of each benchmark the newest result that counts is shown, with its date and the command that runs it again. Nothing on the page comes from
anywhere else; ``--check`` says whether it is what the results say.
"""
