"""Starts `salver stream`, waits for it, and ends it."""

import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import time
import urllib.error
import urllib.request

import pytest

from server import BINARY, NO_RUNTIMES, free_port, wait_for

# All that run at the moment, so that a failed test can show their logs.
RUNNING = []

# Headers that every answer has.
MODEL, VERSION, LATENCY = "salver-model", "salver-model-version", "salver-latency-us"


class Stream:
    """One process. `config` is the text of its TOML file; the arguments come after `stream`."""

    def __init__(self, folder, *arguments, config=None, env=None, wait=True):
        self.port = free_port()
        self.base = f"http://127.0.0.1:{self.port}"
        folder = pathlib.Path(folder)
        self.log_path = folder / f"stream-{self.port}.log"
        self.command = [str(BINARY), "stream", f"--metrics_port={self.port}", "--host=127.0.0.1", *map(str, arguments)]
        if config is not None:
            file = folder / f"stream-{self.port}.toml"
            file.write_text(config)
            self.command.append(f"--config={file}")
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                self.command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                env={**os.environ, **NO_RUNTIMES, **(env or {})}, cwd=folder,
            )
        RUNNING.append(self)
        if wait:
            self.wait_ready()

    def wait_ready(self, timeout=60.0):
        """Until /readyz says 200: the model answers and the group is being joined."""
        try:
            wait_for(self.is_ready, "/readyz answers 200", timeout=timeout)
        except BaseException:
            print(f"{self.command}\n{self.log()}")
            self.kill()
            raise

    def is_ready(self):
        if self.process.poll() is not None:
            pytest.fail(f"the stream ended with {self.process.returncode} at start:\n{self.log()}")
        with contextlib.suppress(OSError):
            return self.get("/readyz")[0] == 200
        return False

    def get(self, path):
        """Status and text."""
        try:
            with urllib.request.urlopen(self.base + path, timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def metrics(self):
        """The samples of /metrics: text of name and labels -> value."""
        lines = [line for line in self.get("/metrics")[1].splitlines() if line and not line.startswith("#")]
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}

    def metric(self, name, **labels):
        """The sum of the samples of that name which have these labels."""
        def has(sample):
            return all(f'{key}="{value}"' in sample for key, value in labels.items())

        return sum(value for sample, value in self.metrics().items() if sample.split("{")[0] == name and has(sample))

    def has_metric(self, name):
        return any(sample.split("{")[0] == name for sample in self.metrics())

    def log(self):
        return self.log_path.read_text(errors="replace")

    def wait_log(self, pattern, timeout=60.0):
        """The first match in the log; a failed test where none comes in time."""
        return wait_for(lambda: re.search(pattern, self.log()), f"the log matches {pattern!r}", timeout=timeout)

    # Ends

    def kill(self):
        """As a crash would: SIGKILL."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self in RUNNING:
            RUNNING.remove(self)

    def stop(self, timeout=60.0):
        """SIGTERM; gives the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.wait(timeout)

    def wait(self, timeout=60.0):
        """Waits for the end; gives the exit status."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            pytest.fail(f"the stream has not ended in {timeout} s")
        finally:
            self.kill()


def drained(kafka, group, topic, timeout=60.0):
    """Waits until the group has committed the end of every partition of the topic that has records."""
    def done():
        ends = {part: end for part, end in kafka.ends(topic).items() if end > 0}
        committed = kafka.committed(group, topic)
        return all(committed.get(part, 0) >= end for part, end in ends.items())

    # Each question takes some milliseconds of the broker.
    end = time.monotonic() + timeout
    while not done():
        if time.monotonic() > end:
            pytest.fail(f"{group} has committed {kafka.committed(group, topic)} of {kafka.ends(topic)} in {timeout} s")
        time.sleep(0.1)


def values(records):
    """The JSON of each record."""
    return [json.loads(record.value) for record in records]
