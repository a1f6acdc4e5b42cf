"""Fixtures: brokers that many tests share, streams of a test's own, models."""

import os
import pathlib
import shutil

import pytest

import broker
import models as made
import server as servers
import graphs
import streaming

ROOT = pathlib.Path(__file__).resolve().parents[2]


def missing(why):
    """Skips on a person's machine; fails in CI, where nothing may be missing."""
    if os.environ.get("CI", "") not in ("", "0", "false"):
        pytest.fail(why)
    pytest.skip(why)


def pytest_sessionstart(session):
    if not servers.BINARY.exists():
        pytest.exit(f"{servers.BINARY} does not exist; build it with `cargo build --release`", returncode=1)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        for running in [*streaming.RUNNING, *servers.RUNNING]:
            tail = "\n".join(running.log().splitlines()[-60:])
            report.sections.append((" ".join(running.command), tail))


def cluster(name, *arguments):
    found = broker.Kafka.start(name, *arguments)
    if found is None:
        missing("Java or Maven is not installed, so there is no broker")
    return found


@pytest.fixture(scope="session")
def kafka():
    """One broker for all tests."""
    one = cluster("tests")
    yield one
    one.stop()


@pytest.fixture(scope="module")
def three():
    """Three brokers, of which one may be away, for the tests of a module."""
    brokers = cluster("tests-three", "--brokers", 3)
    yield brokers
    brokers.stop()


@pytest.fixture
def stream(tmp_path):
    """Starts streams of the test's own; all are ended after it."""
    started = []

    def start(*arguments, **options):
        running = streaming.Stream(tmp_path, *arguments, **options)
        started.append(running)
        return running

    yield start
    for running in started:
        running.kill()


@pytest.fixture
def serve(tmp_path):
    """Starts model servers of the test's own; all are ended after it."""
    started = []

    def start(*arguments, **options):
        server = servers.Server(tmp_path, *arguments, **options)
        started.append(server)
        return server

    yield start
    for server in started:
        server.stop()


@pytest.fixture
def model(tmp_path):
    """Writes a model, a version of it, and gives its folder."""
    def write(content, version=1, name="model"):
        graphs.save(content, tmp_path / "models" / name, version)
        return tmp_path / "models" / name

    return write


@pytest.fixture
def affine(model):
    """y = 0.5 * x + 2."""
    return model(made.affine(), name="affine")


@pytest.fixture(scope="session")
def digits():
    return ROOT / "examples" / "models" / "digits"


@pytest.fixture(scope="session")
def testdata() -> pathlib.Path:
    """Models that are not part of the repository."""
    path = os.environ.get("SALVER_TESTDATA")
    if not path:
        missing("SALVER_TESTDATA is not set")
    return pathlib.Path(path)


@pytest.fixture(scope="session")
def kcat():
    if not shutil.which("kcat"):
        missing("kcat is not installed")
    return "kcat"


# How long a transaction of a process that was killed keeps its records from readers.
SHORT = """
[kafka.sink.transactions]
timeout_ms = 8000
"""


class Pipe:
    """Topics of a test's own, and the streams between them."""

    def __init__(self, kafka, stream, *arguments, partitions=4, config=None, dead=False, sink=None):
        self.kafka, self._start, self.config = kafka, stream, config
        self.source, self.sink = kafka.topic("in", partitions), sink or kafka.topic("out", partitions)
        self.group = f"group-{self.source}"
        self.arguments = [
            "--from", kafka.address(self.source), "--to", kafka.address(self.sink), "--group", self.group, *arguments,
        ]
        self.dead = kafka.topic("dead", 1) if dead else None
        if dead:
            self.arguments += ["--dead-letters", self.dead]

    def start(self, *more, config=None, **options):
        return self._start(*self.arguments, *more, config=(config or self.config or "") + SHORT, **options)

    def send(self, records, **settings):
        self.kafka.send(self.source, records, **settings)

    def read(self, n, **options):
        return self.kafka.read(self.sink, n, **options)

    def drained(self, **options):
        streaming.drained(self.kafka, self.group, self.source, **options)


@pytest.fixture
def pipe(kafka, stream):
    """Makes topics, and starts streams between them."""
    def make(*arguments, **options):
        return Pipe(kafka, stream, *arguments, **options)

    return make
