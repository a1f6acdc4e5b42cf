"""What the three programs share: a broker, processes that run beside them, records in and out."""

import argparse
import collections
import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
MODELS = HERE / "models"
# Settings and logs of the last run.
RUN = HERE / "run"

Answer = collections.namedtuple("Answer", "key value headers")


def arguments(text: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bootstrap", metavar="HOST:PORT", help="brokers; one of its own is started when not given (needs Java 17 and Maven)")
    parser.add_argument("--prefix", default="", help="what the names of topics begin with")
    parser.add_argument("--salver", default=salver(), help="the binary (%(default)s)")
    return parser


def salver() -> str:
    built = ROOT / "target" / "release" / "salver"
    return os.environ.get("SALVER_BIN") or (str(built) if built.exists() else "salver")


@contextlib.contextmanager
def broker(bootstrap: str | None):
    """The address of the brokers that were named, or of one that is started for the program's time."""
    if bootstrap:
        yield bootstrap
        return
    xtask = os.environ.get("SALVER_XTASK")
    kafka = [*([xtask] if xtask else ["cargo", "xtask"]), "kafka"]
    name = ["--name", "examples"]
    subprocess.run([*kafka, "down", *name], cwd=ROOT, check=True)
    print("starting Apache Kafka", flush=True)
    started = subprocess.run([*kafka, "up", *name], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if started.returncode != 0:
        sys.exit(started.returncode)
    try:
        yield started.stdout.strip()
    finally:
        subprocess.run([*kafka, "down", *name], cwd=ROOT, check=True)


def topics(bootstrap: str, names: list[str], partitions: int, **config: str) -> None:
    """Makes topics, which must be new: answers of an earlier run would be taken for this one's."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    there = admin.list_topics(timeout=10).topics
    for name in names:
        if name in there:
            sys.exit(f"the topic {name} is there already: remove it, or choose another --prefix")
    settings = {key.replace("_", "."): value for key, value in config.items()}
    for future in admin.create_topics([NewTopic(name, num_partitions=partitions, config=settings) for name in names]).values():
        future.result(timeout=30)


@contextlib.contextmanager
def running(command: list, port: int, log: str):
    """A process, ready by its /readyz on that port; ended by SIGTERM afterwards."""
    RUN.mkdir(exist_ok=True)
    words = [str(word) for word in command]
    # As it could be typed in this folder.
    shown = " ".join(words[1:]).replace(f"{HERE}/", "").replace(f"{HERE.parent}/", "../")
    print(f"$ salver {shown}", flush=True)
    with open(RUN / log, "wb") as file:
        process = subprocess.Popen(words, stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    try:
        wait_ready(process, port, RUN / log)
        yield process
        # A program may have killed it itself.
        if process.returncode != -signal.SIGKILL:
            process.send_signal(signal.SIGTERM)
            if process.wait(60) != 0:
                sys.exit(f"it ended with {process.returncode}: see {RUN / log}")
    finally:
        if process.poll() is None:
            process.kill()


def wait_ready(process, port: int, log: pathlib.Path) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
                if answer.status == 200:
                    return
        time.sleep(0.05)
    sys.exit(f"it is not ready:\n{log.read_text(errors='replace')}")


def free_ports(n: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(n)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def send(bootstrap: str, topic: str, records) -> int:
    """Writes (key, value) pairs; the number of them once all are acknowledged."""
    producer, n = Producer({"bootstrap.servers": bootstrap, "linger.ms": 5, "enable.idempotence": True}), 0
    for key, value in records:
        producer.produce(topic, key=key, value=value)
        producer.poll(0)
        n += 1
    if producer.flush(60) > 0:
        sys.exit(f"{topic} does not take records")
    return n


def read(bootstrap: str, topic: str, n: int, timeout: float = 120.0) -> list[Answer]:
    """The first n committed records, in the order of their partitions."""
    consumer = Consumer({
        "bootstrap.servers": bootstrap, "group.id": "examples", "isolation.level": "read_committed",
        "enable.auto.commit": False, "auto.offset.reset": "earliest",
    })
    partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
    consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
    found, end = [], time.monotonic() + timeout
    while len(found) < n:
        if time.monotonic() > end:
            sys.exit(f"only {len(found)} of {n} answers came in {timeout:.0f} s")
        for message in consumer.consume(500, timeout=0.2):
            if message.error() is not None:
                sys.exit(str(message.error()))
            headers = {name: (value or b"").decode() for name, value in message.headers() or []}
            answer = Answer((message.key() or b"").decode(), json.loads(message.value()), headers)
            found.append((message.partition(), message.offset(), answer))
    consumer.close()
    return [answer for _, _, answer in sorted(found, key=lambda entry: entry[:2])]


def write_settings(name: str, text: str) -> pathlib.Path:
    RUN.mkdir(exist_ok=True)
    (RUN / name).write_text(text)
    return RUN / name


def expect(fact: bool, what: str) -> None:
    """Ends the program where what it shows is not so."""
    if not fact:
        sys.exit(f"NOT AS EXPECTED: {what}")
    print(f"as expected: {what}", flush=True)


def save(model, name: str, version: int = 1) -> pathlib.Path:
    """Writes a Keras model where a server or a stream finds it; its folder."""
    folder = MODELS / name / str(version)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    model.save(folder / f"{name}.keras")
    return folder.parent
