"""What a stream says of itself: metrics, readiness, lag."""

import json

from broker import numbered
from server import wait_for

NAMES = [
    "salver_stream_records_read_total", "salver_stream_answers_total", "salver_stream_calls_total", "salver_stream_rows_total", "salver_stream_lag_records",
    "salver_stream_lag_seconds", "salver_stream_rebalances_total", "salver_stream_partitions",
    "salver_stream_partitions_restoring",
]


def test_metrics_tell_what_was_done(pipe, affine):
    pipe = pipe("--model", affine, partitions=3, dead=True)
    pipe.send(numbered(1000, 10, lambda i: "bad" if i % 10 == 0 else json.dumps({"x": i})))
    running = pipe.start()
    pipe.drained()
    # How much there is to read, brokers tell with what they give to be read next.
    wait_for(lambda: all(running.has_metric(name) for name in NAMES), f"all of {NAMES} are told")
    assert running.metric("salver_stream_records_read_total") == 1000
    assert running.metric("salver_stream_answers_total") == 900
    assert running.metric("salver_stream_refused_total", **{"class": "format", "outcome": "dead"}) == 100
    assert running.metric("salver_stream_partitions") == 3
    assert running.metric("salver_stream_partitions_restoring") == 0
    wait_for(lambda: running.metric("salver_stream_lag_records") == 0, "no lag is left")


def test_lag_is_seen_while_it_is_there(pipe, affine):
    pipe = pipe("--model", affine, "--rate", 100, partitions=2)
    pipe.send(numbered(5000, 10, lambda i: json.dumps({"x": i})))
    running = pipe.start()
    pipe.read(100)
    wait_for(lambda: running.metric("salver_stream_lag_records") > 1000, "lag in records is told")
    wait_for(lambda: running.metric("salver_stream_lag_seconds") > 1, "lag in seconds is told")
    assert running.stop() == 0


def test_it_is_ready_when_the_model_and_partitions_are_there(pipe, affine, kafka):
    pipe = pipe("--model", affine)
    running = pipe.start()
    assert running.get("/livez")[0] == 200
    assert running.get("/readyz")[0] == 200


def test_what_is_not_there_is_named(stream, kafka, affine, tmp_path):
    topic = kafka.address(kafka.topic())
    gone = stream("--from", kafka.address("no-such-topic"), "--to", topic, "--model", affine, wait=False)
    assert gone.wait() != 0 and "no-such-topic" in gone.log()
    gone = stream("--from", kafka.address(kafka.topic()), "--to", topic, "--model", tmp_path / "nothing", wait=False)
    assert gone.wait() != 0 and "nothing" in gone.log()
