"""Run a step: time it, count it, skip what is void, and sort what goes wrong.

Steps don't do this themselves; it is done here, the same way for all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from schemas.errors import FenceLost, MillraceError, RetryLater
from streams.batch import Batch
from streams.ownership import Ownership, Tokens
from streams.transaction import Void

Step = Callable[[Batch], Batch]


class StepFailed(Exception):
    """A step broke on a batch: a bug, in Millrace or in a user's function. Nothing of the batch was committed."""


class Observer(Protocol):
    """Is told how long each step took."""

    def step_took(self, step: str, seconds: float, records: int) -> None: ...


class StepRunner:
    """Runs one step over batches.

    Args:
        name: the step's, in metrics and errors.
        step: what to run.
        ownership: says whether a batch is still worth anything.
        start_over: is told when something we depend on failed, or the state is not ours: the batch is void and will be read again.
        observer: is told the time it took.
    """

    def __init__(
        self, name: str, step: Step, ownership: Ownership, start_over: Callable[[Tokens, MillraceError], None], observer: Observer
    ) -> None:
        self.name = name
        self._step = step
        self._ownership = ownership
        self._start_over = start_over
        self._observer = observer

    def __call__(self, batch: Batch) -> Batch:
        if not self._ownership.current(batch.tokens):
            self._give_back(batch)
            return batch
        begun = time.perf_counter()
        try:
            done = self._step(batch)
        except (RetryLater, FenceLost, Void) as error:
            self._start_over(batch.tokens, error)
            return batch
        except MillraceError:
            raise
        except Exception as error:  # the outermost frame: what arrives here is a bug, and stops the worker
            raise StepFailed(f"{self.name} failed on {batch}: {type(error).__name__}: {error}") from error
        self._observer.step_took(self.name, time.perf_counter() - begun, len(batch))
        return done

    def _give_back(self, batch: Batch) -> None:
        """A batch is void as a whole when one of its partitions left: what it holds of the others has to be read again."""
        kept = self._ownership.kept(batch.tokens)
        if kept:
            self._start_over(kept, Void("another partition of the batch left while it was under way"))
