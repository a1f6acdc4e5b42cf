"""Versions of a model that swap while the stream runs, and parts of the keys that others score."""

import json
import re
import shutil
import threading
import time

from broker import by_key, header
from streaming import MODEL, VERSION, values
import graphs
import models

PER_SECOND = 500

# Who answered, where it was not the primary.
PART = "salver-part"

# What the log says of a switch: where, for each partition.
SWITCH = r"model version {} -> {} from offset (\d+) of [^/]+/(\d+)"


class Feed(threading.Thread):
    """Sends records without a pause until it is told to end: {"x": 0}, {"x": 1}, ..."""

    def __init__(self, pipe, n_keys=20):
        super().__init__(daemon=True)
        self.pipe, self.n_keys, self.ended, self.n = pipe, n_keys, threading.Event(), 0
        self.start()

    def run(self):
        while not self.ended.is_set():
            batch = range(self.n, self.n + PER_SECOND // 10)
            self.pipe.send([{"key": f"k{i % self.n_keys}", "value": json.dumps({"x": i})} for i in batch])
            self.n = batch.stop
            time.sleep(0.1)

    def end(self):
        self.ended.set()
        self.join(timeout=60)
        return self.n


def until_version(pipe, version, timeout=60):
    """Reads until an answer of that version has come."""
    end = time.monotonic() + timeout
    reader = pipe.kafka.reader(pipe.sink)
    try:
        while time.monotonic() < end:
            for message in reader.consume(1000, timeout=0.2):
                if ("salver-model-version", str(version).encode()) in (message.headers() or []):
                    return
    finally:
        reader.close()
    raise AssertionError(f"no answer of version {version} in {timeout} s")


def check_versions(answers, n, n_keys, versions):
    """Each record once and in order; what is said of each is its version's; per key the versions come in this order."""
    assert len(answers) == n
    for key, records in by_key(answers).items():
        assert [value["x"] for value in values(records)] == list(range(int(key[1:]), n, n_keys))
        found = [int(header(record, VERSION)) for record in records]
        assert [version for i, version in enumerate(found) if i == 0 or found[i - 1] != version] == versions
        for record, version in zip(records, found):
            value = json.loads(record.value)
            assert value["y"] == 0.5 * value["x"] + version


def test_a_new_version_takes_over_and_goes_back(pipe, model):
    folder = model(models.affine(offset=1.0), 1)
    config = """
        [sink]
        source_headers = true
    """
    pipe = pipe("--model", folder, "--file_system_poll_wait_seconds", 1, partitions=4, config=config)
    running = pipe.start()
    feed = Feed(pipe)
    until_version(pipe, 1)
    model(models.affine(offset=2.0), 2)
    until_version(pipe, 2)
    running.wait_log(SWITCH.format(1, 2))
    shutil.rmtree(folder / "2")
    running.wait_log(SWITCH.format(2, 1))
    time.sleep(1)
    n = feed.end()
    pipe.drained()
    answers = pipe.kafka.read_all(pipe.sink)
    check_versions(answers, n, feed.n_keys, [1, 2, 1])
    # The log says where the switch was, for each partition.
    for before, after in ((1, 2), (2, 1)):
        for offset, partition in re.findall(SWITCH.format(before, after), running.log()):
            of_partition = {
                int(header(record, "salver-source-offset")): int(header(record, VERSION))
                for record in answers if header(record, "salver-source-partition") == partition
            }
            assert of_partition[int(offset)] == after


def test_a_version_that_does_not_load_changes_nothing(pipe, model):
    folder = model(models.affine(offset=1.0), 1)
    pipe = pipe("--model", folder, "--file_system_poll_wait_seconds", 1, partitions=2)
    running = pipe.start()
    feed = Feed(pipe)
    until_version(pipe, 1)
    model(graphs.BROKEN, 2)
    running.wait_log("does not load.*version=2")
    time.sleep(1)
    n = feed.end()
    pipe.drained()
    check_versions(pipe.kafka.read_all(pipe.sink), n, feed.n_keys, [1])


def test_a_version_that_lacks_an_input_of_the_mapping_is_not_taken(pipe, model):
    folder = model(models.affine(offset=1.0), 1)
    config = """
        [[input.tensors]]
        input = "x"
        field = "x"
    """
    pipe = pipe("--model", folder, "--file_system_poll_wait_seconds", 1, partitions=2, config=config)
    running = pipe.start()
    feed = Feed(pipe)
    until_version(pipe, 1)
    model(models.pair(), 2)
    running.wait_log("AVAILABLE.*version=2")
    time.sleep(1)
    n = feed.end()
    # Version 1 is gone, since the folder says so, and version 2 cannot be: the stream waits for one that can.
    assert running.process.poll() is None, running.log()
    shutil.rmtree(folder / "2")
    pipe.drained()
    check_versions(pipe.kafka.read_all(pipe.sink), n, feed.n_keys, [1])


def both(model):
    """Versions 1 and 2, served side by side."""
    model(models.affine(offset=1.0), 1)
    return model(models.affine(offset=2.0), 2)


def test_a_canary_has_the_same_keys_always(pipe, model):
    config = """
        [model]
        version = 1
        [canary]
        percent = 30
        version = 2
    """
    pipe = pipe("--model", both(model), partitions=4, config=config)
    records = [{"key": f"k{i % 200}", "value": json.dumps({"x": i})} for i in range(4000)]
    pipe.send(records)
    pipe.start()
    versions = {}
    for record in pipe.read(4000):
        value, version = json.loads(record.value), int(header(record, VERSION))
        assert value["y"] == 0.5 * value["x"] + version
        assert header(record, PART) == ("canary" if version == 2 else None)
        versions.setdefault(record.key, set()).add(version)
    assert all(len(found) == 1 for found in versions.values())
    share = sum(found == {2} for found in versions.values()) / len(versions)
    assert 0.18 < share < 0.42


def test_a_shadow_has_a_topic_of_its_own(pipe, model, kafka):
    shadow = kafka.topic("shadow", 2)
    config = f"""
        [model]
        version = 1
        [shadow]
        percent = 100
        version = 2
        to = "{shadow}"
    """
    pipe = pipe("--model", both(model), partitions=2, config=config)
    pipe.send([{"key": f"k{i % 20}", "value": json.dumps({"x": i})} for i in range(500)])
    pipe.start()
    answers, shadows = pipe.read(500), kafka.read(shadow, 500)
    assert sorted(value["x"] for value in values(answers)) == list(range(500))
    assert {(header(record, VERSION), header(record, PART)) for record in answers} == {("1", None)}
    assert {(header(record, VERSION), header(record, PART)) for record in shadows} == {("2", "shadow")}
    assert all(value["y"] == 0.5 * value["x"] + 2 for value in values(shadows))


def test_a_replay_waits_for_its_shadow(pipe, model, kafka):
    shadow = kafka.topic("shadow", 2)
    config = f"""
        [model]
        version = 1
        [shadow]
        percent = 100
        version = 2
        to = "{shadow}"
        max_records = 5000
        max_bytes = 100_000_000
    """
    pipe = pipe("--model", both(model), "--from-offset", "0", partitions=2, config=config)
    pipe.send([{"key": f"k{i % 20}", "value": json.dumps({"x": i})} for i in range(3000)])
    running = pipe.start(wait=False)
    assert running.wait() == 0, running.log()
    assert len(kafka.read_all(pipe.sink)) == 3000
    assert sorted(value["x"] for value in values(kafka.read_all(shadow))) == list(range(3000))
    assert re.search(rf"shadow +3,000 +\S+{shadow}", running.log()), running.log()


def test_a_shadow_that_fails_harms_nobody(pipe, model, kafka):
    shadow = kafka.topic("shadow", 2)
    model(models.affine(offset=1.0), 1)
    # Takes other inputs: each call of it fails.
    folder = model(models.pair(), 2)
    config = f"""
        [model]
        version = 1
        [shadow]
        percent = 100
        version = 2
        to = "{shadow}"
    """
    pipe = pipe("--model", folder, partitions=2, config=config)
    pipe.send([{"key": f"k{i % 20}", "value": json.dumps({"x": i})} for i in range(500)])
    pipe.start()
    pipe.drained()
    answers = kafka.read_all(pipe.sink)
    assert sorted(value["x"] for value in values(answers)) == list(range(500))
    assert {header(record, MODEL) for record in answers} == {"model"}
