"""Bounded runs over a part of a topic: by offsets, by time, up to the end; they end by themselves and go on where they were."""

import json
import time

from streaming import values

BEGIN = 1_700_000_000_000


def filled(pipe, n, partitions):
    """n records per partition, one a second."""
    records = [
        {"partition": p, "value": json.dumps({"x": i, "p": p}), "timestamp": BEGIN + 1000 * i} for i in range(n) for p in range(partitions)
    ]
    pipe.send(records)


def replayed(pipe, *arguments, **options):
    running = pipe.start(*arguments, wait=False, **options)
    assert running.wait() == 0, running.log()
    return [(value["p"], value["x"]) for value in values(pipe.kafka.read_all(pipe.sink))]


def check(pipe, affine, arguments, expected, partitions=2):
    pipe = pipe("--model", affine, partitions=partitions)
    filled(pipe, 100, partitions)
    found = replayed(pipe, *arguments)
    assert sorted(found) == [(p, x) for p in range(partitions) for x in expected(p)]
    return pipe


def test_up_to_the_end(pipe, affine):
    check(pipe, affine, ["--until", "end"], lambda p: range(100))


def test_between_offsets(pipe, affine):
    check(pipe, affine, ["--from-offset", 20, "--until", 30], lambda p: range(20, 30))


def test_offsets_of_each_partition(pipe, affine):
    arguments = ["--from-offset", "0:90,1:10", "--until", "0:95,1:12"]
    check(pipe, affine, arguments, lambda p: range(90, 95) if p == 0 else range(10, 12))


def test_between_times(pipe, affine):
    arguments = ["--from-time", BEGIN + 20_500, "--until", "2023-11-14T22:13:55Z"]
    # 22:13:20 is BEGIN.
    check(pipe, affine, arguments, lambda p: range(21, 35))


def test_a_replay_leaves_the_group_of_the_stream_alone(pipe, affine, kafka):
    pipe = pipe("--model", affine, partitions=1)
    filled(pipe, 100, 1)
    running = pipe.start()
    pipe.read(100)
    assert running.stop() == 0
    before = kafka.committed(pipe.group, pipe.source)
    other = kafka.topic("replayed")
    at = pipe.arguments.index("--group")
    arguments = [*pipe.arguments[:at], *pipe.arguments[at + 2 :], "--to", kafka.address(other), "--from-offset", 50, "--until", "end"]
    del arguments[2:4]
    replay = pipe._start(*arguments, wait=False)
    assert replay.wait() == 0, replay.log()
    assert [value["x"] for value in values(kafka.read_all(other))] == list(range(50, 100))
    assert kafka.committed(pipe.group, pipe.source) == before


def test_a_replay_that_was_killed_goes_on(pipe, affine):
    pipe = pipe("--model", affine, "--delivery", "exactly_once", partitions=2)
    filled(pipe, 4000, 2)
    arguments = ["--from-offset", 100, "--until", 3900]
    first = pipe.start(*arguments, "--rate", 2000, wait=False)
    pipe.read(500)
    first.kill()
    found = replayed(pipe, *arguments)
    assert sorted(found) == [(p, x) for p in range(2) for x in range(100, 3900)]


def test_a_rate_is_kept(pipe, affine):
    pipe = pipe("--model", affine, partitions=2)
    filled(pipe, 1000, 2)
    begin = time.monotonic()
    assert len(replayed(pipe, "--until", "end", "--rate", 500)) == 2000
    # Beyond its start-up, four seconds' worth; a second of records may come at once.
    assert time.monotonic() - begin > 2.5
