"""Three brokers, of which some die while records are scored."""

import json
import time

import pytest

from conftest import Pipe
from test_once import N_KEYS, check_complete, value
from broker import numbered

N = 20_000


@pytest.mark.timeout(400)
def test_exactly_once_while_brokers_die(three, stream, affine):
    pipe = Pipe(three, stream, "--model", affine, "--delivery", "exactly_once", partitions=6)
    pipe.send(numbered(N, N_KEYS, value), **{"acks": "all"})
    running = [pipe.start("--rate", 2000) for _ in range(2)]
    for node, n in ((1, 2000), (2, 6000), (3, 10_000)):
        three.read_for(pipe.sink, 60, until=n)
        three.kill_broker(node)
        three.read_for(pipe.sink, 15, until=n + 2000)
        three.start_broker(node)
    assert [one.process.poll() for one in running] == [None, None], "a scorer ended"
    pipe.drained(timeout=120)
    check_complete(three.read_all(pipe.sink), N)


def test_all_brokers_away_for_a_while(three, stream, affine):
    pipe = Pipe(three, stream, "--model", affine, partitions=3)
    pipe.send(numbered(1000, N_KEYS, value))
    running = pipe.start()
    pipe.read(1000)
    for node in (1, 2):
        three.kill_broker(node)
    # Without a majority nothing goes on, and nothing ends.
    assert running.process.poll() is None
    for node in (1, 2):
        three.start_broker(node)
    pipe.send([{"key": f"k{i % N_KEYS}", "value": json.dumps({"x": i})} for i in range(1000, 2000)])
    pipe.drained(timeout=120)
    check_complete(three.read_all(pipe.sink), 2000)


@pytest.mark.timeout(400)
def test_exactly_once_over_an_outage_longer_than_transactions_may_last(three, stream, affine):
    pipe = Pipe(three, stream, "--model", affine, "--delivery", "exactly_once", partitions=6)
    pipe.send(numbered(N, N_KEYS, value), **{"acks": "all"})
    running = [pipe.start("--rate", 2000) for _ in range(2)]
    three.read_for(pipe.sink, 60, until=2000)
    # Without a majority no coordinator answers: what became of the commits that were on their way nobody knows.
    for node in (1, 2):
        three.kill_broker(node)
    time.sleep(25)
    assert [one.process.poll() for one in running] == [None, None], "a scorer ended"
    for node in (1, 2):
        three.start_broker(node)
    pipe.drained(timeout=180)
    check_complete(three.read_all(pipe.sink), N)
    assert [one.process.poll() for one in running] == [None, None], "a scorer ended"
