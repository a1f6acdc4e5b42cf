"""A real Kafka, started by xtask, and clients of it that are not ours: confluent-kafka, and kcat where it is installed."""

import collections
import concurrent.futures
import contextlib
import itertools
import os
import pathlib
import shlex
import subprocess
import time
import uuid

import pytest
from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

ROOT = pathlib.Path(__file__).resolve().parents[2]

# The status of xtask where Java or Maven is missing.
MISSING = 3

Record = collections.namedtuple("Record", "partition offset key value headers timestamp")


def xtask(*arguments):
    """Runs `cargo xtask kafka ...`; gives what it prints."""
    program = shlex.split(os.environ.get("SALVER_XTASK") or "cargo xtask")
    command = [*program, "kafka", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True)


class Kafka:
    """A cluster. Topics that a test makes have names of their own, so that tests leave each other alone."""

    def __init__(self, name, bootstrap):
        self.name, self.bootstrap = name, bootstrap
        self.admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 1})

    @classmethod
    def start(cls, name, *arguments):
        """Starts one, in the place of one that a broken run has left behind; `None` where Java is missing."""
        xtask("down", "--name", name)
        started = xtask("up", "--name", name, *arguments)
        if started.returncode == MISSING:
            return None
        assert started.returncode == 0, started.stderr
        return cls(name, started.stdout.strip().splitlines()[-1])

    def stop(self):
        xtask("down", "--name", self.name)

    def do(self, verb, node):
        """Has xtask do something with one broker."""
        done = xtask(verb, node, "--name", self.name)
        assert done.returncode == 0, done.stderr

    def kill_broker(self, node):
        self.do("kill", node)

    def start_broker(self, node):
        self.do("start", node)

    @contextlib.contextmanager
    def standing_still(self, *nodes):
        """Brokers that keep their connections and answer nothing meanwhile."""
        with contextlib.ExitStack() as stack:
            for node in nodes:
                self.do("pause", node)
                stack.callback(self.do, "resume", node)
            yield

    # Topics

    def topic(self, what="topic", partitions=1, **config):
        """Makes a topic; words of its settings are joined by _ here and by . there."""
        name = f"{what}-{uuid.uuid4().hex[:8]}"
        settings = {key.replace("_", "."): str(value) for key, value in config.items()}
        made = self.admin.create_topics([NewTopic(name, num_partitions=partitions, config=settings)])
        made[name].result(timeout=30)
        return name

    def address(self, topic):
        """How the command line names a topic."""
        return f"kafka://{self.bootstrap}/{topic}"

    def exists(self, topic):
        return topic in self.admin.list_topics(timeout=30).topics

    def n_partitions(self, topic):
        return len(self.admin.list_topics(topic, timeout=30).topics[topic].partitions)

    def ends(self, topic, committed=True):
        """Partition -> the offset after its last record, or after the last one that a reader of committed records may see."""
        level = IsolationLevel.READ_COMMITTED if committed else IsolationLevel.READ_UNCOMMITTED
        parts = {TopicPartition(topic, p): OffsetSpec.latest() for p in range(self.n_partitions(topic))}
        end = time.monotonic() + 60
        while True:
            found = self.admin.list_offsets(parts, isolation_level=level, request_timeout=5)
            try:
                return {part.partition: future.result(timeout=10).offset for part, future in found.items()}
            except (KafkaException, concurrent.futures.TimeoutError):
                # A topic that was made a moment ago, leaders that move, or a broker that is away.
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)

    def settled(self, topic, timeout=30.0):
        """The ends, once no transaction is open: a commit returns before all partitions know of it. Where one stays open (of a
        process that was killed, with none in its place), what is behind it is not counted."""
        end = time.monotonic() + timeout
        while (ends := self.ends(topic)) != self.ends(topic, committed=False) and time.monotonic() < end:
            time.sleep(0.05)
        return ends

    # Records

    def send(self, topic, records, **settings):
        """Writes records: values, or dicts of what Producer.produce takes. Waits until all are acknowledged."""
        producer = Producer({"bootstrap.servers": self.bootstrap, "linger.ms": 5, "enable.idempotence": True, **settings})
        failed = []

        def told(error, _message):
            if error is not None:
                failed.append(error)

        for record in records:
            fields = record if isinstance(record, dict) else {"value": record}
            while True:
                try:
                    producer.produce(topic, on_delivery=told, **fields)
                    break
                except BufferError:
                    producer.poll(0.1)
            producer.poll(0)
        assert producer.flush(60) == 0 and not failed, failed[:3]

    def reader(self, topic, committed=True, begin=0):
        """A consumer of all partitions from an offset on, in no group."""
        level = "read_committed" if committed else "read_uncommitted"
        consumer = Consumer({
            "bootstrap.servers": self.bootstrap, "group.id": f"reader-{uuid.uuid4().hex}", "isolation.level": level,
            "enable.auto.commit": False, "auto.offset.reset": "earliest", "fetch.wait.max.ms": 50,
        })
        consumer.assign([TopicPartition(topic, p, begin) for p in range(self.n_partitions(topic))])
        return consumer

    def read(self, topic, n, timeout=60.0, committed=True):
        """The first n records, by partition and in its order; a failed test where fewer come in time."""
        found = self.read_for(topic, timeout, until=n, committed=committed)
        assert len(found) >= n, f"{len(found)} of {n} records came in {timeout} s on {topic}"
        return found

    def read_for(self, topic, seconds, until=None, committed=True):
        """What comes in so many seconds, or until so many are there."""
        end, found = time.monotonic() + seconds, []
        with contextlib.closing(self.reader(topic, committed)) as consumer:
            while time.monotonic() < end and (until is None or len(found) < until):
                for message in consumer.consume(1000, timeout=0.2):
                    if message.error() is None:
                        found.append(record(message))
                    elif message.error().code() != KafkaError._PARTITION_EOF:
                        pytest.fail(str(message.error()))
        return sorted(found, key=lambda record: record[:2])

    def read_all(self, topic, timeout=60.0):
        """All records that are committed now."""
        ends, end = self.settled(topic), time.monotonic() + timeout
        found, positions = [], collections.Counter()
        with contextlib.closing(self.reader(topic)) as consumer:
            while any(positions[p] < last for p, last in ends.items()):
                assert time.monotonic() < end, f"{topic}: read to {dict(positions)} of {ends}"
                for message in consumer.consume(10_000, timeout=0.2):
                    assert message.error() is None, message.error()
                    if message.offset() < ends[message.partition()]:
                        found.append(record(message))
                # Control records have offsets, too, and are never given.
                for part in consumer.position(consumer.assignment()):
                    positions[part.partition] = max(part.offset, 0)
        return sorted(found, key=lambda record: record[:2])

    def committed(self, group, topic):
        """Partition -> the offset that the group has committed, for those that have one."""
        # Asked as a consumer that never joins: the admin client of librdkafka 2.16 dereferences a null pointer where a broker
        # answers that it is no longer the group's coordinator (librdkafka #5040).
        asked = [TopicPartition(topic, p) for p in range(self.n_partitions(topic))]
        settings = {"bootstrap.servers": self.bootstrap, "group.id": group, "enable.auto.commit": False, "log_level": 1}
        end = time.monotonic() + 60
        with contextlib.closing(Consumer(settings)) as consumer:
            while True:
                try:
                    return {part.partition: part.offset for part in consumer.committed(asked, timeout=5) if part.offset >= 0}
                except KafkaException:
                    # The group's coordinator is away, or moves.
                    if time.monotonic() > end:
                        raise
                    time.sleep(0.1)

    def members(self, group):
        """So many consumers are in the group."""
        return len(self.admin.describe_consumer_groups([group])[group].result(timeout=30).members)


def record(message):
    headers = [(name, value) for name, value in message.headers() or []]
    return Record(message.partition(), message.offset(), message.key(), message.value(), headers, message.timestamp()[1])


def header(record, name):
    """The last header of that name as text, or None."""
    values = [value for found, value in record.headers if found == name]
    return values[-1].decode() if values else None


def by_key(records):
    """Key -> its records, in their order."""
    groups = collections.defaultdict(list)
    for record in records:
        groups[record.key].append(record)
    return groups


def numbered(n, n_keys, value):
    """n records with keys k0, k1, ..., whose values `value(i)` makes."""
    keys = itertools.cycle(range(n_keys))
    return [{"key": f"k{key}", "value": value(i)} for i, key in zip(range(n), keys)]
