"""A stand-in for a broker where Java is missing: librdkafka's mock cluster, in a process of its own.

It takes and gives records, groups and transactions by the same protocol, in memory. It keeps none of the promises that matter:
see `NOTICE`. For a demonstration, and never for a proof.
"""

from __future__ import annotations

import ctypes
import importlib.util
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from schemas.errors import LocalServiceError

NOTICE = (
    "This is an embedded stand-in, not Apache Kafka: records are lost when it ends, and its transactions guarantee nothing "
    "(aborted records may be read, and nothing is fenced). It shows how Millrace works, not that it works."
)
END_SECONDS = 5.0
PRODUCER = 0  # the kind of client, as librdkafka numbers them


@contextmanager
def embedded_broker(topics: Mapping[str, int]) -> Iterator[str]:
    """Run the stand-in, and give its address for ``bootstrap.servers``; it ends with the block, or with this process.

    Args:
        topics: their names and numbers of partitions; it takes no requests to make topics, nor for their settings.

    Raises:
        LocalServiceError: it didn't start.
    """
    command = [sys.executable, "-m", "streams.local.embedded_broker", *(f"{name}={partitions}" for name, partitions in topics.items())]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            address = process.stdout.readline().strip()
            if not address:
                raise LocalServiceError(f"the embedded broker ended as it started, with exit code {process.wait(END_SECONDS)}")
            yield address
        finally:
            process.stdin.close()
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def serve(topics: Mapping[str, int]) -> None:
    """Keep a mock cluster of one broker, say where it listens, and end when standard input does."""
    client = _client_library()
    words = ctypes.create_string_buffer(512)
    quiet = client.rd_kafka_conf_new()  # it warns that it knows no broker; it is there to be one
    client.rd_kafka_conf_set(quiet, b"log_level", b"2", words, len(words))
    holder = client.rd_kafka_new(PRODUCER, quiet, words, len(words))
    if not holder:
        sys.exit(f"no client to hold the embedded broker: {words.value.decode()}")
    cluster = client.rd_kafka_mock_cluster_new(holder, 1)
    for name, partitions in topics.items():
        code = client.rd_kafka_mock_topic_create(cluster, name.encode(), partitions, 1)
        if code:
            sys.exit(f"the embedded broker refuses topic {name} with {partitions} partitions: error {code}")
    print(client.rd_kafka_mock_cluster_bootstraps(cluster).decode(), flush=True)
    sys.stdin.read()
    client.rd_kafka_mock_cluster_destroy(cluster)
    client.rd_kafka_destroy(holder)


def _client_library() -> ctypes.CDLL:
    """The C library inside the Kafka client: its mock cluster has no Python of its own."""
    found = importlib.util.find_spec("confluent_kafka.cimpl")
    assert found is not None
    client = ctypes.CDLL(found.origin)  # what it is linked with is looked up through it
    handle, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
    client.rd_kafka_new.argtypes, client.rd_kafka_new.restype = (number, handle, text, ctypes.c_size_t), handle
    client.rd_kafka_conf_new.restype = handle
    client.rd_kafka_conf_set.argtypes = (handle, text, text, text, ctypes.c_size_t)
    client.rd_kafka_mock_cluster_new.argtypes, client.rd_kafka_mock_cluster_new.restype = (handle, number), handle
    client.rd_kafka_mock_topic_create.argtypes = (handle, text, number, number)
    client.rd_kafka_mock_cluster_bootstraps.argtypes, client.rd_kafka_mock_cluster_bootstraps.restype = (handle,), text
    client.rd_kafka_mock_cluster_destroy.argtypes = client.rd_kafka_destroy.argtypes = (handle,)
    return client


if __name__ == "__main__":
    serve({name: int(partitions) for name, _, partitions in (each.partition("=") for each in sys.argv[1:])})
