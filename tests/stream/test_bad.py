"""Records that cannot be answered: each kind of trouble, and each thing that can be done about it."""

import json

import pytest

import models
from broker import header
from streaming import values

GOOD = [json.dumps({"x": i}) for i in range(10)]
NOT_JSON = b"\xff{"
NO_FIELD = b'{"z": 1}'
WRONG_TYPE = b'{"x": "text"}'


@pytest.mark.parametrize(
    ("bad", "reason"), [(NOT_JSON, "format"), (NO_FIELD, "shape"), (WRONG_TYPE, "shape")], ids=["not-json", "no-field", "wrong-type"]
)
def test_dead_letters_are_the_original(pipe, affine, bad, reason):
    pipe = pipe("--model", affine, partitions=1, dead=True)
    pipe.send([*GOOD[:5], {"value": bad, "key": "k", "headers": [("mine", b"\x00")], "timestamp": 1_600_000_000_000}, *GOOD[5:]])
    pipe.start()
    assert [value["x"] for value in values(pipe.read(10))] == list(range(10))
    (dead,) = pipe.kafka.read(pipe.dead, 1)
    assert (dead.value, dead.key, ("mine", b"\x00") in dead.headers) == (bad, b"k", True)
    told = {name: value.decode() for name, value in dead.headers if name.startswith("salver-error")}
    assert told["salver-error-class"] == reason
    assert told["salver-error-topic"] == pipe.source
    assert (told["salver-error-partition"], told["salver-error-offset"]) == ("0", "5")
    assert told["salver-error-message"]
    pipe.drained()


def test_one_bad_record_of_a_batch_leaves_the_others_alone(pipe, affine):
    pipe = pipe("--model", affine, "--batch", 64, partitions=1, dead=True)
    records = [NO_FIELD if i % 7 == 3 else json.dumps({"x": i}) for i in range(700)]
    pipe.send(records)
    pipe.start()
    assert [value["x"] for value in values(pipe.read(600))] == [i for i in range(700) if i % 7 != 3]
    assert len(pipe.kafka.read(pipe.dead, 100)) == 100


def test_fail_ends_the_stream_and_commits_nothing_of_it(pipe, affine):
    pipe = pipe("--model", affine, partitions=1)
    pipe.send([*GOOD[:5], NOT_JSON, *GOOD[5:]])
    running = pipe.start(wait=False)
    assert running.wait() != 0
    assert "/0" in running.log() and "5" in running.log() and "expected" in running.log()
    # What came before is answered once, and the next run ends at the same record.
    assert [value["x"] for value in values(pipe.kafka.read_all(pipe.sink))] == list(range(5))
    again = pipe.start(wait=False)
    assert again.wait() != 0
    assert [value["x"] for value in values(pipe.kafka.read_all(pipe.sink))] == list(range(5))


def test_skip_leaves_it_out(pipe, affine):
    pipe = pipe("--model", affine, partitions=1, config='[errors]\nformat = "skip"\n')
    pipe.send([*GOOD[:5], NOT_JSON, *GOOD[5:]])
    running = pipe.start()
    assert [value["x"] for value in values(pipe.read(10))] == list(range(10))
    pipe.drained()
    assert len(pipe.kafka.read_all(pipe.sink)) == 10
    assert running.metric("salver_stream_refused_total", **{"class": "format", "outcome": "skipped"}) == 1


# What comes along and is not true of what is written.
CAME = [("mine", b"1"), ("content-type", b"image/png"), ("__value_schema_id", b"7"), ("salver-model", b"earlier")]


def test_emit_writes_an_error_among_the_answers(pipe, affine):
    pipe = pipe("--model", affine, partitions=1, config='[errors]\nformat = "emit"\n')
    pipe.send([*GOOD[:5], {"value": NOT_JSON, "key": "bad", "headers": CAME}, *GOOD[5:]])
    pipe.start()
    answers = pipe.read(11)
    (error,) = [answer for answer in answers if answer.key == b"bad"]
    assert "error" in json.loads(error.value)
    told = [(name, value) for name, value in error.headers if not name.startswith("salver-error-")]
    assert told == [("mine", b"1"), ("content-type", b"application/json")]
    assert len([answer for answer in answers if b'"y"' in answer.value]) == 10


def test_tombstones_pass_by_default(pipe, affine):
    pipe = pipe("--model", affine, partitions=1)
    pipe.send([{"key": "a", "value": '{"x": 1}'}, {"key": "a", "value": None}, {"key": "a", "value": '{"x": 2}'}])
    pipe.start()
    answers = pipe.read(3)
    assert [answer.key for answer in answers] == [b"a"] * 3
    assert answers[1].value is None
    assert [json.loads(answers[i].value)["y"] for i in (0, 2)] == [2.5, 3.0]


def test_what_is_no_answer_keeps_the_partition_too(pipe, affine):
    config = '[errors]\nformat = "emit"\n[sink]\nkeep_partition = true\n'
    pipe = pipe("--model", affine, partitions=4, config=config)
    # One key in all partitions, of which its hash names one.
    contents = [GOOD[0], None, NOT_JSON]
    pipe.send([
        {"key": "k", "value": value, "partition": partition, "headers": CAME} for partition in range(4) for value in contents
    ])
    pipe.start()
    answers = pipe.read(12)
    assert [answer.partition for answer in answers] == [partition for partition in range(4) for _ in contents]
    for answer, tombstone, error in zip(answers[::3], answers[1::3], answers[2::3]):
        assert b'"y"' in answer.value and "error" in json.loads(error.value)
        assert tombstone.value is None and header(tombstone, "salver-model") is None


@pytest.mark.parametrize("policy", ["skip", "dead"])
def test_tombstones_otherwise(pipe, affine, policy):
    pipe = pipe("--model", affine, partitions=1, dead=True, config=f'[errors]\ntombstone = "{policy}"\n')
    pipe.send([{"key": "a", "value": '{"x": 1}'}, {"key": "a", "value": None}, {"key": "a", "value": '{"x": 2}'}])
    pipe.start()
    assert [value["x"] for value in values(pipe.read(2))] == [1, 2]
    pipe.drained()
    dead = pipe.kafka.read_all(pipe.dead)
    assert [record.value for record in dead] == ([None] if policy == "dead" else [])


def test_oversize_records_are_dead(pipe, affine):
    pipe = pipe("--model", affine, partitions=1, dead=True, config="[limits]\nmax_record_bytes = 1000\n")
    large = json.dumps({"x": 1, "text": "-" * 1000})
    pipe.send([GOOD[0], large, GOOD[1]])
    pipe.start()
    assert [value["x"] for value in values(pipe.read(2))] == [0, 1]
    (dead,) = pipe.kafka.read(pipe.dead, 1)
    assert dead.value == large.encode() and header(dead, "salver-error-class") == "oversize"


def test_an_answer_that_the_topic_does_not_take_is_dead(pipe, affine, kafka):
    pipe = pipe("--model", affine, partitions=1, dead=True, sink=kafka.topic("small", 1, max_message_bytes=2000))
    large = json.dumps({"x": 1, "text": "-" * 3000})
    pipe.send([GOOD[0], large, GOOD[1]])
    pipe.start()
    assert [value["x"] for value in values(pipe.read(2))] == [0, 1]
    (dead,) = pipe.kafka.read(pipe.dead, 1)
    assert dead.value == large.encode() and header(dead, "salver-error-class") == "oversize"


def test_a_slow_record_is_timed_out(pipe, model):
    pipe = pipe("--model", model(models.slow()), "--timeout-ms", 1500, partitions=1, dead=True, config='[errors]\ntimeout = "dead"\n[retry]\ntimeouts = false\n')
    pipe.send([json.dumps({"times": 1}), json.dumps({"times": 10_000_000}), json.dumps({"times": 2})])
    pipe.start()
    assert [value["times"] for value in values(pipe.read(2))] == [1, 2]
    (dead,) = pipe.kafka.read(pipe.dead, 1)
    assert header(dead, "salver-error-class") == "timeout"
