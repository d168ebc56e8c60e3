"""What can go wrong, as one tree.

    MillraceError
    ├── RecordError            this record can't be used; the ones beside it can        -> dead letter
    ├── RetryLater             something we depend on does not answer                   -> pause, keep the batch, try again
    │   └── StoreDown          Redis is unreachable, refuses or is full
    ├── FenceLost              another owner holds the state, or the state moved back   -> drop it, assign again
    │   └── LostBlock          a key's stored block is damaged or partly lost           -> rebuild the shard from the log
    ├── TooManyRecords         a key has more events in its windows than declared       -> stop, by name
    ├── ScoringFailed          the model's run failed; no row of the batch has a score   -> stop, loudly
    └── Refused                this can't be started as it stands                       -> exit, one clear line
        ├── DefinitionError    the pipeline file contradicts itself or its schema
        ├── SchemaError        a schema is broken, missing or incompatible
        ├── ModelError         the model is missing, broken or made for other features
        ├── SettingsError      a setting is missing or out of range
        ├── TopicError         a topic is missing, or its settings would lose records
        ├── StateError         offsets and state contradict each other
        ├── LocalServiceError  a local broker or Redis can't be started
        │   └── MissingProgram what it needs is not on this machine, or too old
        ├── HistoryError       a table or file of past events is missing, broken or not what the pipeline reads
        └── UnknownKey         features of a key are asked for that no worker has ever seen

Anything else is a bug in Millrace or in a user's function: it stops the worker, loudly.
"""

from __future__ import annotations


class MillraceError(Exception):
    """Whatever Millrace raises on purpose."""


class RecordError(MillraceError):
    """This record can't be used; the ones beside it can."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason  # one of a fixed set of words: safe as a metric label
        self.detail = detail  # free text: what was found, what was wanted


class RetryLater(MillraceError):
    """Something we depend on does not answer now; the same call may succeed after `after_seconds`."""

    def __init__(self, detail: str, after_seconds: float = 1.0) -> None:
        super().__init__(detail)
        self.after_seconds = after_seconds


class StoreDown(RetryLater):
    """The state store is unreachable, refuses us or is full; nothing was written."""


class FenceLost(MillraceError):
    """The state of a shard is not ours any more, or is not where we left it: what was derived from it is void."""


class LostBlock(FenceLost):
    """The stored block of a key isn't what was written to it: the shard has to be rebuilt from its log."""

    shard = ""  # which one, as the store knows it


class TooManyRecords(MillraceError):
    """A key has more events in its windows than its entity declares room for."""


class ScoringFailed(MillraceError):
    """The model's run failed as a whole: no row of the batch has a score. The same batch would fail again."""


class Refused(MillraceError):
    """This can't be started as it stands: the message says what was found, what was wanted and the way out."""

    exit_code = 2


class DefinitionError(Refused):
    """The pipeline file contradicts itself or its schema."""

    exit_code = 10


class SchemaError(Refused):
    """A schema is broken, missing or incompatible."""

    exit_code = 11


class ModelError(Refused):
    """The model is missing, broken, or made for other features."""

    exit_code = 12


class SettingsError(Refused):
    """A setting is missing or out of range."""

    exit_code = 13


class TopicError(Refused):
    """A topic is missing, or its settings would lose records."""

    exit_code = 14


class StateError(Refused):
    """Committed offsets and stored state contradict each other."""

    exit_code = 15


class LocalServiceError(Refused):
    """A local broker or Redis can't be started, or doesn't answer."""

    exit_code = 16


class MissingProgram(LocalServiceError):
    """A program that a local service needs is not on this machine, or is too old."""


class HistoryError(Refused):
    """A table or file of past events is missing, broken, or not what the pipeline reads."""

    exit_code = 17


class UnknownKey(Refused):
    """Features of a key are asked for that the state knows nothing of."""

    exit_code = 18
