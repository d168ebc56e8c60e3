"""A scene (`tests.live.scene`) whose workers come from a nursery, and whose history goes to the checker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from confluent_kafka import ConsumerGroupState

from streams.faults.checker import Verdict, check
from streams.faults.log import read_history
from streams.faults.nursery import Child, Nursery
from streams.kafka import TopicPartition, plain_consumer
from streams.planning.stage import Stage
from tests.live.scene import CUSTOMERS_ONLY, ROOT, Scene, wait_for
from tests.services import Broker

__all__ = ["ROOT", "Stand"]


class Stand:
    """The example's pipeline, customers only."""

    def __init__(self, folder: Path, broker: Broker, redis_url: str, nursery: Nursery, **options: Any) -> None:
        changes = {**CUSTOMERS_ONLY, **options.pop("changes", {})}
        self.scene = Scene(folder, broker, redis_url, changes=changes, **options)
        self._nursery = nursery
        self.children: list[Child] = []

    def worker(self, instance: str, bug: str = "", fault: str = "", stall: str = "", **environment: str) -> Child:
        """Start one, with a bug planted, a fault waiting for it, and a file that holds its commits up, if they are named."""
        scene = self.scene
        variables = {
            "KAFKA__BOOTSTRAP_SERVERS": scene.broker.bootstrap_servers,
            "KAFKA__INSTANCE": f"{scene.name}-{instance}",
            "KAFKA__START": "earliest",
            "KAFKA__SESSION_TIMEOUT_MS": "2500",
            "KAFKA__TRANSACTION_TIMEOUT_MS": "2000",
            "REDIS__URL": scene.redis_url,
            "WORKER__BATCH_RECORDS": "50",
            "HEALTH__PORT": "0",
            "FAULT": fault,
            **environment,
        }
        ours = {f"MILLRACE_{name}": value for name, value in variables.items() if value}
        planted = {"PLANTED_BUG": bug, "PLANTED_STALL": stall, "PLANTED_GROUP": scene.stage.group(scene.settings.kafka)}
        log = scene.folder / f"child-{len(self.children)}.log"
        self.children.append(self._nursery.start(["millrace", "run", str(scene.file)], {**ours, **planted}, log))
        return self.children[-1]

    def close(self) -> None:
        """End what still runs."""
        for child in self.children:
            child.kill()
        self.scene.close()

    def check(self, *, at_rest: bool = True) -> Verdict:
        """What the checker says of what is there now."""
        scene = self.scene
        history = read_history(scene.bound, scene.settings.kafka, self.position)
        return check(scene.bound, history, scene.bound.schema_folder, at_rest=at_rest)

    def kinds(self, *, at_rest: bool = True) -> set[str]:
        """The kinds of what the checker finds."""
        return {finding.kind for finding in self.check(at_rest=at_rest).findings}

    def position(self, stage: Stage, partition: int) -> int | None:
        """How far a partition's state has come."""
        return self.scene.positions()[partition]

    def ends_at(self, child: Child, code: int) -> None:
        """Wait until a worker ended as it should."""
        found = child.ends()
        assert found == code, f"ended with {found}, wanted {code}:\n{child.log[-3_000:]}"

    def drained(self) -> None:
        """Wait until everything on the input is committed."""
        self.scene.drained()

    def hastily_committed(self, partition: int = 0) -> int:
        """The group's offset now, whatever transaction is open on it."""
        scene = self.scene
        reader = plain_consumer(scene.settings.kafka, scene.stage.group(scene.settings.kafka), read_committed=False)
        try:
            return int(reader.committed([TopicPartition(scene.bound.input.name, partition)], 10.0)[0].offset)
        finally:
            reader.close()

    def falls_back(self, what: str, position: int, partition: int = 0) -> None:
        """Wait until a partition's state stands below a position."""
        wait_for(what, lambda: (self.scene.positions()[partition] or 0) < position)

    def members(self) -> int:
        """How many the group has, at rest; 0 while it is shared out anew."""
        scene = self.scene
        group, client = scene.stage.group(scene.settings.kafka), scene.broker.admin
        (asked,) = client.describe_consumer_groups([group]).values()
        found: Any = asked.result(10)
        return len(found.members) if found.state == ConsumerGroupState.STABLE else 0
