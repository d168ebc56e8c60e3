"""Who may still commit."""

from __future__ import annotations

import threading

from streams.ownership import InFlight, Ownership


def test_a_batch_of_an_owned_partition_commits_as_the_member_captured() -> None:
    ownership = Ownership()
    tokens = {3: ownership.grant(3)}
    ownership.capture("generation 7")
    with ownership.holding(tokens) as member:
        assert member == "generation 7"


def test_a_partition_that_left_and_came_back_makes_older_batches_void() -> None:
    ownership = Ownership()
    ownership.capture("generation 7")
    before = {3: ownership.grant(3)}
    ownership.revoke(3)
    after = {3: ownership.grant(3)}
    with ownership.holding(before) as member:
        assert member is None
    with ownership.holding(after) as member:
        assert member == "generation 7"


def test_one_lost_partition_makes_a_batch_of_several_void() -> None:
    ownership = Ownership()
    ownership.capture("generation 7")
    tokens = {1: ownership.grant(1), 2: ownership.grant(2)}
    ownership.revoke(2)
    assert not ownership.current(tokens)
    assert ownership.current({1: tokens[1]})


def test_voiding_old_tokens_leaves_new_ones_alone() -> None:
    ownership = Ownership()
    old = {1: ownership.grant(1)}
    new = {1: ownership.grant(1)}
    ownership.void(old)
    assert ownership.current(new)


def test_a_revocation_waits_for_the_commit_under_way() -> None:
    ownership = Ownership()
    tokens = {1: ownership.grant(1)}
    ownership.capture("member")
    order: list[str] = []

    def revoke() -> None:
        ownership.revoke(1)
        order.append("revoked")

    revoker = threading.Thread(target=revoke)
    with ownership.holding(tokens) as member:
        assert member == "member"
        revoker.start()
        revoker.join(0.05)
        assert revoker.is_alive()
        order.append("committed")
    revoker.join(5)
    assert order == ["committed", "revoked"]


def test_the_pipeline_takes_no_more_batches_than_its_limit() -> None:
    in_flight = InFlight(2)
    in_flight.enter()
    in_flight.enter()
    assert not in_flight.room(0)
    assert not in_flight.drained(0)
    in_flight.leave()
    assert in_flight.room(0)
    in_flight.leave()
    assert in_flight.drained(0)
