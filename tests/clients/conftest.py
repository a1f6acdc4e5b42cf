"""Fixtures: a server that most tests share, servers of a test's own, test data from outside the repository."""

import os
import pathlib
import shutil

import pytest

import graphs
import server as servers


def missing(why):
    """Skips on a person's machine; fails in CI, where nothing may be missing."""
    if os.environ.get("CI", "") not in ("", "0", "false"):
        pytest.fail(why)
    pytest.skip(why)


def pytest_sessionstart(session):
    if not servers.BINARY.exists():
        pytest.exit(f"{servers.BINARY} does not exist; build it with `cargo build --release`", returncode=1)
    if not shutil.which("curl"):
        pytest.exit("curl is not installed", returncode=1)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        for running in servers.RUNNING:
            tail = "\n".join(running.log().splitlines()[-60:])
            report.sections.append((" ".join(running.command), tail))


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> pathlib.Path:
    """The folder of models that the shared server serves. Tests do not change it."""
    return graphs.write_all(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def shared(models, tmp_path_factory):
    """One server for all tests that leave it as it is."""
    server = servers.Server(tmp_path_factory.mktemp("shared"), models)
    yield server
    server.stop()


@pytest.fixture
def serve(tmp_path):
    """Starts servers of the test's own; all are ended after it."""
    started = []

    def start(*arguments, **options):
        server = servers.Server(tmp_path, *arguments, **options)
        started.append(server)
        return server

    yield start
    for server in started:
        server.stop()


@pytest.fixture(scope="session")
def runtimes() -> pathlib.Path:
    """The folder of installed native libraries."""
    folder = os.environ.get("SALVER_RUNTIMES")
    if not folder:
        missing("the native libraries are not installed (SALVER_RUNTIMES is not set)")
    return pathlib.Path(folder)


@pytest.fixture(scope="session")
def testdata() -> pathlib.Path:
    """Models that are not part of the repository."""
    path = os.environ.get("SALVER_TESTDATA")
    if not path:
        missing("SALVER_TESTDATA is not set")
    return pathlib.Path(path)
