"""One shard in Redis, and the fence around it: every change is refused once somebody else is its owner, or it isn't where it was left.

    {<namespace>.<shard>}o                       hash: o the position, e the owner's token, n notes, d a drop under way
    {<namespace>.<shard>}<entity>:<32 hex>       string: a block

The braces put all of a shard on one slot. The fence is a WATCH on the hash: an EXEC does nothing if the hash was touched since,
by a new owner's claim, a wipe or anything else. It is renewed behind every EXEC in the same send:

    MULTI  SETRANGE.. SET..  HSET o  EXEC  WATCH  HMGET o e

A WATCH belongs to its connection, and any EXEC ends all of them: so each shard has a connection of its own, which never reconnects
by itself. After a fault the new one watches first, then reads position and token, and what it finds decides:

    e is not ours             another owner: lost
    o = where the write led   it had happened: it is sent again, for its replies (all it says is absolute, so nothing changes)
    o = where it began        it had not: it is sent again
    anything else             wiped, or restarted from an older state: lost

A write cut off earlier may still arrive. It comes before the repeat, which then executes nothing and is made once more, or after
it, and executes nothing itself: each breaks the other's WATCH.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from schemas.columns import Octets, PackedBytes
from schemas.errors import FenceLost, LostBlock, StoreDown
from transforms.resp import ERROR, NULL, Replies, command, pack_reads, pack_writes
from transforms.store import Claim, Writes, check_position
from transforms.wire import Wire, WireCut

R = TypeVar("R")

_MULTI, _EXEC = command(b"MULTI"), command(b"EXEC")
_TOKEN_BYTES = 8
_SCAN_KEYS = b"10000"


@dataclass(frozen=True, slots=True)
class Fence:
    """What the hash of a shard says."""

    position: int | None
    token: bytes | None


@dataclass(slots=True)
class _Sent:
    """A write whose answer is outstanding."""

    payload: Octets
    commands: int  # in the transaction
    position: int
    is_repeated: bool = False


class FencedShard:
    """The owner's end of one shard. Calls may come from several threads; they take turns.

    Args:
        connect: opens a connection.
        namespace: before every key.
        shard: the shard's name.
    """

    def __init__(self, connect: Callable[[], Wire], namespace: str, shard: str) -> None:
        self._connect = connect
        self._shard = shard
        self._tag = f"{{{namespace}.{shard}}}"
        self._key = shard_key(namespace, shard)
        self._renew = command(b"WATCH", self._key) + command(b"HMGET", self._key, b"o", b"e")
        # In a cluster, blocks that went to another node meanwhile were not seen. While a slot is on its way a key that was never there
        # is asked for in vain, and nothing of the transaction happens.
        self._all_here = command(b"EXISTS", f"{self._tag}none".encode())
        self._lock = threading.RLock()
        self._wire: Wire | None = None
        self._token = b""
        self._position: int | None = None
        self._sent: _Sent | None = None
        self._void: FenceLost | None = None  # why what was derived from the state can't be used any more
        self._notes_before: dict[bytes, bytes] = {}  # by the token of a claim that failed half-way: the notes that stood there before it

    def claim(self, notes: dict[str, str]) -> Claim:
        """See `Store`."""
        with self._lock:
            self.close()
            self._sent = self._void = None
            wire = self._open()
            token, found = self._set_token(wire, notes)
            *_, position, owner, dropping = wire.ask(command(b"WATCH", self._key) + command(b"HMGET", self._key, b"o", b"e", b"d"), 2)
            if owner != token:
                raise wire.refused("another owner claims it too", f"give shard {self._shard} to us")
            self._token, self._position = token, None if position is None else int(position)
            if dropping is not None:
                try:
                    self._finish_drop()
                except FenceLost as error:
                    raise StoreDown(
                        f"another owner claimed shard {self._shard} while what was left of its old state was deleted"
                    ) from error
            self._notes_before = {}
            return Claim(self._position, json.loads(found))

    def read(self, entity: str, keys: NDArray[np.uint64]) -> PackedBytes:
        """See `Store`."""
        if not len(keys):
            return PackedBytes.pack([])
        gets, count = pack_reads(f"{self._tag}{entity}:".encode(), keys)

        def attempt() -> PackedBytes:
            self._see_through()
            replies = self._fenced().ask(gets + command(b"HMGET", self._key, b"o", b"e"), count + 1)
            self._check(_fence(replies))
            return replies.blocks(len(keys))

        return self._twice(attempt)

    def write(self, writes: Sequence[Writes], position: int) -> None:
        """See `Store`."""
        with self._lock:
            self.settle()
            check_position(self._shard, self._position, position)
            changes = [pack_writes(f"{self._tag}{each.entity}:".encode(), each) for each in writes]
            last = command(b"HSET", self._key, b"o", b"%d" % position) + _EXEC + self._renew
            payload = np.concatenate([np.frombuffer(_MULTI, np.uint8), *changes, np.frombuffer(last, np.uint8)])
            self._sent = _Sent(payload, sum(len(each.keys) for each in writes) + 1, position)
            try:
                self._send(self._fenced(), self._sent)
            except StoreDown:
                pass  # it is taken: the next call sees it through

    def settle(self) -> None:
        """See `Store`."""
        self._twice(self._see_through)

    def release(self) -> None:
        """See `Store`."""

        def attempt() -> None:
            self._see_through()
            if self._wire is None or not self._wire.is_open:
                found = self._watch()
                if found == Fence(self._position, None):
                    return  # released already; the answer to it was lost
                self._check(found)
            self._transact(command(b"HDEL", self._key, b"e", b"n"))

        self._twice(attempt)
        self.close()

    def drop(self, deleted: Callable[[int], None] | None = None) -> None:
        """See `Store`; `deleted` is told how many more blocks are gone."""
        with self._lock:
            self.settle()
            self._begin_drop()
            self._finish_drop(deleted)
            self._transact(command(b"DEL", self._key))
            self.close()

    def load(self, writes: Iterable[Writes], position: int) -> None:
        """See `Archive`. The mark of a drop stands until all of it is there."""
        with self._lock:
            self.settle()
            self._begin_drop()
            self._delete_blocks()
            for each in writes:
                self._check(self._execute(pack_writes(f"{self._tag}{each.entity}:".encode(), each).tobytes(), len(each.keys)))
            token = secrets.token_hex(_TOKEN_BYTES).encode()  # another one: a dump begun before sees that it was another state
            finish = command(b"HSET", self._key, b"o", b"%d" % position, b"e", token), command(b"HDEL", self._key, b"d")
            found = self._transact(self._all_here, *finish)
            self._token, self._position = token, position
            self._check(found)

    def close(self) -> None:
        """Close the connection, unless another thread's call is using it: that one ends with it."""
        if self._lock.acquire(blocking=False):
            try:
                if self._wire is not None:
                    self._wire.close()
                self._wire = None
            finally:
                self._lock.release()

    def _twice(self, attempt: Callable[[], R]) -> R:
        # A connection that was cut says nothing about the server, which may answer at once on a new one.
        with self._lock:
            try:
                return attempt()
            except WireCut:
                return attempt()

    # --- the outstanding write ---

    def _send(self, wire: Wire, sent: _Sent) -> None:
        # MULTI, each command, EXEC, WATCH and HMGET answer; EXEC with an array of results, HMGET with one of two.
        wire.send(sent.payload, sent.commands + 4, 2 * sent.commands + 6)

    def _see_through(self) -> None:
        """Find out what became of the outstanding write; repeat it if that isn't known, or if nothing became of it."""
        if self._void is not None:
            raise self._void
        while (sent := self._sent) is not None:
            if self._wire is None or not self._wire.is_waiting:
                found = self._watch()
                if found != Fence(sent.position, self._token):
                    self._check(found)
                sent.is_repeated = True
                self._send(self._fenced(), sent)
            self._judge(sent, self._fenced())

    def _judge(self, sent: _Sent, wire: Wire) -> None:
        replies = wire.receive()
        executed = sent.commands + 1  # the element that answers EXEC
        if replies.kinds[executed] == ERROR:
            raise wire.refused(replies.error() or "", f"move shard {self._shard} to {sent.position} with {sent.commands - 1} blocks")
        if (refusal := replies.error(slice(len(replies) - 4, None))) is not None:
            raise wire.refused(refusal)
        found = _fence(replies)
        if replies.kinds[executed] == NULL:
            if sent.is_repeated and found == Fence(sent.position, self._token):
                wire.close()  # the one that was cut off came first: once more, for the replies
                return
            self._check(found)
            raise self._lost(FenceLost, "its fence was touched, though it stands where it stood")
        self._position, self._sent = sent.position, None
        if (failure := replies.error(slice(executed + 1, executed + 1 + sent.commands))) is not None:
            self._condemn()
            raise self._lost(LostBlock, f"moved to {sent.position}, but a block of it could not be written: {failure}")
        self._check(found)

    # --- dropping ---

    def _condemn(self) -> None:
        """Let the state count as none, in case we end before it is rebuilt."""
        try:
            self._begin_drop()
        except StoreDown:
            pass  # then only the owner knows, who is about to drop it

    def _begin_drop(self) -> None:
        # The mark goes with the position: blocks without either would pass for those of a state that begins.
        found = self._transact(command(b"HSET", self._key, b"d", b"1"), command(b"HDEL", self._key, b"o"))
        self._position = None
        self._check(found)

    def _finish_drop(self, deleted: Callable[[int], None] | None = None) -> None:
        """Delete the blocks, then the mark."""
        self._delete_blocks(deleted)
        self._check(self._transact(self._all_here, command(b"HDEL", self._key, b"d", b"o")))
        self._position = None

    def _delete_blocks(self, deleted: Callable[[int], None] | None = None) -> None:
        """All of it fenced, since a new owner's blocks must not go with ours."""
        pattern = "".join("\\" + letter if letter in "*?[]^\\" else letter for letter in self._tag).encode() + b"*:*"
        cursor: bytes | None = None
        while cursor != b"0":
            scan = command(b"SCAN", cursor or b"0", b"MATCH", pattern, b"COUNT", _SCAN_KEYS)
            cursor, *keys = self._fenced().ask(scan, 1)
            if keys:
                self._check(self._transact(command(b"UNLINK", *(key for key in keys if key is not None))))
                if deleted is not None:
                    deleted(len(keys))

    # --- the fence ---

    def _set_token(self, wire: Wire, notes: dict[str, str]) -> tuple[bytes, bytes]:
        """Shut every older owner out, before anything is read that it could still change; the new token, and the notes that stood there."""
        *_, before, owner = wire.ask(command(b"HMGET", self._key, b"n", b"e"), 1)
        # A claim whose answer was lost has replaced the notes already.
        found = self._notes_before.get(owner or b"", before or b"{}")
        token = secrets.token_hex(_TOKEN_BYTES).encode()
        self._notes_before = {token: found}
        wire.ask(command(b"HSET", self._key, b"e", token, b"n", json.dumps(notes, separators=(",", ":")).encode()), 1)
        return token, found

    def _transact(self, *commands: bytes) -> Fence:
        """A small fenced transaction, awaited; how the fence stands after it."""
        return self._execute(b"".join(commands), len(commands))

    def _execute(self, commands: bytes, count: int) -> Fence:
        wire = self._fenced()
        replies = wire.ask(_MULTI + commands + _EXEC + self._renew, count + 4)
        found = _fence(replies)
        if replies.kinds[count + 1] == NULL:
            self._check(found)
            raise self._lost(FenceLost, "its fence was touched")
        return found

    def _open(self) -> Wire:
        if self._wire is None or not self._wire.is_open:
            self._wire = self._connect()
        return self._wire

    def _watch(self) -> Fence:
        """A new connection, with the fence set up before it is read."""
        self.close()
        return _fence(self._open().ask(self._renew, 2))

    def _fenced(self) -> Wire:
        """The connection; after a cut a new one, if the shard is still ours and where we left it."""
        if self._wire is None or not self._wire.is_open:
            self._check(self._watch())
        return self._open()

    def _check(self, found: Fence) -> None:
        if found == Fence(self._position, self._token):
            return
        if found.token is None:
            raise self._lost(FenceLost, "its owner's token is gone")
        if found.token != self._token:
            raise self._lost(FenceLost, "it has another owner")
        raise self._lost(FenceLost, f"it stands at {found.position}, not at {self._position} where it was left")

    def _lost(self, kind: type[FenceLost], why: str) -> FenceLost:
        self.close()
        self._void = kind(f"shard {self._shard}: {why}")
        if isinstance(self._void, LostBlock):
            self._void.shard = self._shard
        return self._void


def shard_key(namespace: str, shard: str) -> bytes:
    """The hash of a shard; the braces put all its keys on the same slot."""
    return f"{{{namespace}.{shard}}}o".encode()


def _fence(replies: Replies) -> Fence:
    """From the end of replies: HMGET o e."""
    position, token = replies[len(replies) - 2], replies[len(replies) - 1]
    return Fence(None if position is None else int(position), token)
