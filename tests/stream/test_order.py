"""Order per key, with many workers and many keys, and without keys."""

import json

from broker import by_key, numbered
from streaming import values

N = 20_000


def test_order_per_key_with_parallel_workers(pipe, affine):
    pipe = pipe("--model", affine, "--workers", 4, "--in-flight", 4, "--batch", 16, "--delivery", "at_least_once", partitions=8)
    pipe.send(numbered(N, 97, lambda i: json.dumps({"x": i})))
    running = pipe.start()
    answers = pipe.read(N)
    assert len(answers) == N
    for key, records in by_key(answers).items():
        found = values(records)
        assert [value["x"] for value in found] == list(range(int(key[1:]), N, 97)), key
        assert all(value["y"] == 0.5 * value["x"] + 2 for value in found)
    # It was worth having more than one worker: calls had several rows.
    calls, rows = running.metric("salver_stream_calls_total"), running.metric("salver_stream_rows_total")
    assert rows == N and calls < N / 2, running.metrics()


def test_records_without_a_key_are_all_answered(pipe, affine):
    pipe = pipe("--model", affine, "--workers", 4, partitions=8)
    pipe.send([json.dumps({"x": i}) for i in range(N)])
    pipe.start()
    assert sorted(value["x"] for value in values(pipe.read(N))) == list(range(N))


def test_records_without_a_key_in_order_of_their_partition(pipe, affine):
    config = """
        [delivery]
        null_keys = "partition"
    """
    pipe = pipe("--model", affine, "--workers", 4, "--delivery", "at_least_once", partitions=1, config=config)
    pipe.send([json.dumps({"x": i}) for i in range(N)])
    pipe.start()
    assert [value["x"] for value in values(pipe.read(N))] == list(range(N))
