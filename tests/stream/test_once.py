"""Delivery: exactly once through crashes, at least once, positions on SIGTERM, and scorers that come and go."""

import collections
import json
import random
import time

import pytest

from broker import by_key, numbered
from streaming import values

N = 30_000
N_KEYS = 50


def value(i):
    return json.dumps({"x": i})


def check_complete(answers, n=N, n_keys=N_KEYS):
    """Each record once, in order per key, with its answer."""
    assert len(answers) == n
    for key, records in by_key(answers).items():
        found = values(records)
        assert [value["x"] for value in found] == list(range(int(key[1:]), n, n_keys)), key
        assert all(value["y"] == 0.5 * value["x"] + 2 for value in found)


def test_exactly_once_over_kills(pipe, affine):
    pipe = pipe("--model", affine, "--delivery", "exactly_once", partitions=8)
    pipe.send(numbered(N, N_KEYS, value))
    chance = random.Random(11)
    seen = 0
    for _ in range(4):
        running = pipe.start()
        # Somewhere in the middle, whatever it does then.
        seen = len(pipe.kafka.read_for(pipe.sink, 30, until=min(N, seen + chance.randrange(1000, 5000))))
        running.kill()
    assert 0 < seen < N, "the kills were not in the middle"
    pipe.start()
    pipe.drained()
    check_complete(pipe.kafka.read_all(pipe.sink))


def test_at_least_once_over_a_kill(pipe, affine):
    pipe = pipe("--model", affine, "--delivery", "at_least_once", partitions=4)
    pipe.send(numbered(N, N_KEYS, value))
    first = pipe.start()
    pipe.read(N // 5)
    first.kill()
    pipe.start()
    pipe.drained()
    found = collections.Counter(value["x"] for value in values(pipe.kafka.read_all(pipe.sink)))
    assert set(found) == set(range(N))


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_sigterm_commits_and_the_next_goes_on(pipe, affine, delivery):
    pipe = pipe("--model", affine, "--delivery", delivery, "--rate", 4000, partitions=4)
    pipe.send(numbered(N, N_KEYS, value))
    running = pipe.start()
    pipe.read(2000)
    assert running.stop() == 0
    answered = len(pipe.kafka.read_all(pipe.sink))
    assert 0 < answered < N
    assert sum(pipe.kafka.committed(pipe.group, pipe.source).values()) == answered
    assert pipe.kafka.members(pipe.group) == 0, "it did not leave the group"
    pipe.arguments.remove("--rate"), pipe.arguments.remove(4000)
    pipe.start()
    pipe.drained()
    # Nothing twice, with either delivery: all that was begun was finished and committed.
    check_complete(pipe.kafka.read_all(pipe.sink))


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_scorers_come_and_go(pipe, affine, delivery):
    pipe = pipe("--model", affine, "--delivery", delivery, partitions=6)
    running, sent = [pipe.start()], 0

    def send(n):
        nonlocal sent
        pipe.send([{"key": f"k{i % N_KEYS}", "value": value(i)} for i in range(sent, sent + n)])
        sent += n

    send(5000)
    running.append(pipe.start())
    send(5000)
    running.append(pipe.start())
    send(5000)
    assert pipe.kafka.members(pipe.group) == 3
    assert running.pop(0).stop() == 0
    send(5000)
    pipe.drained()
    assert running.pop(0).stop() == 0
    send(5000)
    pipe.drained()
    check_complete(pipe.kafka.read_all(pipe.sink), sent)


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_killed_scorer_with_a_name_comes_back(pipe, affine, protocol):
    config = f"[source]\ninstance = 'one'\n[kafka.source]\nprotocol = '{protocol}'\n"
    pipe = pipe("--model", affine, "--delivery", "exactly_once", partitions=2)
    records = [{"key": f"k{i % N_KEYS}", "value": value(i)} for i in range(200)]
    pipe.send(records[:100])
    running = pipe.start(config=config)
    pipe.read(100)
    # It has no time to give its name back.
    running.kill()
    pipe.send(records[100:])
    running = pipe.start(config=config, wait=False)
    pipe.drained()
    check_complete(pipe.kafka.read_all(pipe.sink), 200)
    assert running.stop() == 0


def test_three_scorers_share_the_partitions(pipe, affine):
    pipe = pipe("--model", affine, partitions=6)
    running = [pipe.start() for _ in range(3)]
    end = time.monotonic() + 60
    while [one.metric("salver_stream_partitions") for one in running] != [2, 2, 2]:
        assert time.monotonic() < end, [one.metrics() for one in running]
        time.sleep(0.1)
    pipe.send(numbered(N, N_KEYS, value))
    pipe.drained()
    check_complete(pipe.kafka.read_all(pipe.sink))
    assert all(one.metric("salver_stream_records_read_total") > 0 for one in running)


def test_a_kill_hands_partitions_over(pipe, affine):
    pipe = pipe("--model", affine, "--delivery", "exactly_once", partitions=6)
    running = [pipe.start() for _ in range(2)]
    pipe.send(numbered(N, N_KEYS, value))
    running[0].kill()
    pipe.drained(timeout=120)
    check_complete(pipe.kafka.read_all(pipe.sink))


def test_dead_letters_are_exactly_once_too(pipe, affine):
    pipe = pipe("--model", affine, "--delivery", "exactly_once", partitions=4, dead=True)
    records = numbered(N, N_KEYS, lambda i: "bad" if i % 10 == 0 else value(i))
    pipe.send(records)
    running = pipe.start()
    pipe.read(N // 5)
    running.kill()
    pipe.start()
    pipe.drained()
    assert len(pipe.kafka.read_all(pipe.sink)) == N - N // 10
    assert len(pipe.kafka.read_all(pipe.dead)) == N // 10
