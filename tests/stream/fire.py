"""Exactly once under fire: scorers and brokers are killed at random while a topic is scored, and then everything is counted.

Three brokers, three scorers. While records flow, scorers are killed (SIGKILL) and started again, a fourth comes and goes,
brokers are killed (SIGKILL, one at a time) and started again, brokers stand still in the middle of a rebalance (SIGSTOP: members
are thrown out while their commits are on the way, and come back), and two new versions of the model take over; the last records
are sent when all scorers have the last version. At the end the committed output is read by another client and compared with what
was sent: each record once, in order per key, none lost, and every answer equal to what the version in its header computes offline.

    cargo xtask fire [--protocol consumer|classic|both] [--seed N] [--records N] [--keys N]

The seed is printed; the same seed makes the same choices, at moments that follow from how far the output has come. The group shares
partitions as it does where nothing is set (the consumer protocol, by which brokers decide) unless another protocol is named.
"""

import argparse
import collections
import contextlib
import json
import pathlib
import random
import sys
import tempfile
import time

sys.path[:0] = [str(pathlib.Path(__file__).parents[1] / "clients")]

import numpy as np  # noqa: E402

import graphs  # noqa: E402
import models  # noqa: E402
from broker import Kafka, by_key, header  # noqa: E402
from streaming import VERSION, Stream, drained  # noqa: E402

PARTITIONS = 12
SCORERS = 3
# From so many records on, each version must have answered some; in a shorter run the second may come and go while readers wait for a
# transaction of a killed scorer.
LONG = 100_000
# One record of so many is sent only when all scorers answer with the last version.
LAST = 20
# How a group shares partitions -> what the scorers' file says of it. Of nothing that is said comes the consumer protocol, and by the
# cluster's settings a killed scorer is missed after six seconds; with the classic protocol scorers ask for so many.
PROTOCOLS = {"consumer": "", "classic": "[kafka.source]\nprotocol = 'classic'\nsession_timeout_ms = 6000\n"}
# The status of a scorer that was told to end and could not commit all in time.
CUT = 3
STILL = "times that brokers stood still"
# For those who look into a run that failed.
SAYING = "[sink]\nsource_headers = true\n"
# What a scorer says in its log that takes the classic protocol, since brokers lack the other one.
FALLEN_BACK = "joining with the classic one"
# Version -> factor and offset of y = factor * x + offset; no x has the same answer twice.
LAWS = {1: (0.5, 2.0), 2: (0.25, 1e6), 3: (0.125, -1e6)}


class Fire:
    def __init__(self, kafka, folder, seed, n, n_keys, protocol):
        self.kafka, self.folder, self.n, self.n_keys, self.protocol = kafka, pathlib.Path(folder), n, n_keys, protocol
        self.chance = random.Random(seed)
        self.source = kafka.topic("fire-in", PARTITIONS, min_insync_replicas=2)
        self.sink = kafka.topic("fire-out", PARTITIONS, min_insync_replicas=2)
        self.group = f"group-{self.source}"
        self.scorers, self.away, self.n_started = [], None, 0
        self.counts = collections.Counter()
        self.reader, self.n_read = None, 0
        self.n_first = n - n // LAST
        # How long the scorers need at least: all that happens has to find place in it.
        self.is_short = n < LONG
        self.seconds = 40 if self.is_short else 120
        self.publish(1)

    def publish(self, version):
        factor, offset = LAWS[version]
        graphs.save(models.affine(offset, factor), self.folder / "model", version)

    # What happens to scorers and brokers

    def start_scorer(self):
        self.n_started += 1
        folder = self.folder / f"scorer-{self.n_started}"
        folder.mkdir()
        arguments = [
            "--from", self.kafka.address(self.source), "--to", self.kafka.address(self.sink), "--group", self.group,
            "--model", self.folder / "model", "--delivery", "exactly_once", "--rate", self.n / self.seconds / SCORERS,
            "--file_system_poll_wait_seconds", 1,
        ]
        self.scorers.append(Stream(folder, *arguments, config=SAYING + PROTOCOLS[self.protocol], wait=False))

    def kill_scorer(self):
        victim = self.scorers.pop(self.chance.randrange(len(self.scorers)))
        victim.kill()
        self.counts["scorers killed"] += 1
        self.start_scorer()

    def come_and_go(self):
        """One more scorer, or one less: a rebalance that nobody is killed for."""
        if len(self.scorers) <= SCORERS:
            self.start_scorer()
        else:
            gone = self.scorers.pop(0)
            status = gone.stop()
            # Its last commit may not come through in time where brokers have stood still before.
            expected = (0, CUT) if self.counts[STILL] else (0,)
            assert status in expected, f"a scorer ended with {status} after SIGTERM:\n{gone.log()[-4000:]}"
        self.counts["rebalances forced"] += 1

    def kill_broker(self):
        if self.away is None:
            self.away = self.chance.randrange(1, 4)
            self.kafka.kill_broker(self.away)
            self.counts["brokers killed"] += 1
        else:
            self.kafka.start_broker(self.away)
            self.away = None

    def stand_still(self):
        """Brokers stand still in the middle of a rebalance: what they were asked meanwhile they do later, when whoever asked may
        have asked again."""
        self.come_and_go()
        time.sleep(self.chance.uniform(0.3, 2.5))
        there = [node for node in (1, 2, 3) if node != self.away]
        still = self.chance.sample(there, self.chance.choice([len(there), len(there) - 1]))
        with self.kafka.standing_still(*still):
            time.sleep(self.chance.uniform(3.0, 5.5))
        self.counts[STILL] += 1

    def alive(self):
        """A scorer that ends by itself is a failure, whatever the reason."""
        for scorer in self.scorers:
            status = scorer.process.poll()
            assert status is None, f"a scorer ended by itself with {status}:\n{scorer.log()[-6000:]}"

    # The run

    def feed(self, numbers):
        records = [{"key": f"k{i % self.n_keys}", "value": json.dumps({"x": i}, separators=(",", ":"))} for i in numbers]
        self.kafka.send(self.source, records, **{"enable.idempotence": True})

    def n_done(self):
        """Answers that are committed, read by another client: ends of partitions would count the marks of transactions, too, and
        the group's positions cannot be asked for while its coordinator is away."""
        messages = self.reader.consume(10_000, timeout=0.1)
        self.n_read += sum(message.error() is None for message in messages)
        return self.n_read

    def burn(self):
        self.reader = self.kafka.reader(self.sink)
        for _ in range(SCORERS):
            self.start_scorer()
        # So many events, evenly over the output: versions at one and two thirds, the others as chance has it.
        several = [self.kill_scorer, self.kill_scorer, self.kill_broker, self.come_and_go, self.stand_still]
        events = [self.chance.choice(several) for _ in range(14)]
        events = [self.kill_scorer, self.kill_broker, self.stand_still, self.come_and_go, *events, self.stand_still, self.kill_scorer]
        moments = [self.n * (at + 1) // (len(events) + 2) for at in range(len(events))]
        plan = sorted(
            [*zip(moments, events), (self.n // 3, lambda: self.publish(2)), (2 * self.n // 3, lambda: self.publish(3))],
            key=lambda one: one[0],
        )
        for moment, event in plan:
            end = time.monotonic() + 180
            while self.n_done() < moment:
                self.alive()
                assert time.monotonic() < end, f"the output stays at {self.n_read} of {self.n}, {moment} expected"
            print(f"  at {moment:>8,}: {getattr(event, '__name__', 'publish').replace('_', ' ')}", flush=True)
            event()
        if self.away is not None:
            self.kill_broker()
        for scorer in self.scorers:
            scorer.wait_log(rf"AVAILABLE.*version={max(LAWS)}\b")
        self.feed(range(self.n_first, self.n))
        drained(self.kafka, self.group, self.source, timeout=300)
        self.alive()

    def check(self):
        records = self.kafka.read_all(self.sink, timeout=300)
        seen = collections.Counter(json.loads(record.value)["x"] for record in records)
        twice = [x for x, n in seen.items() if n > 1]
        lost = [x for x in range(self.n) if x not in seen]
        order, wrong, versions, strange = 0, 0, collections.Counter(), collections.Counter()
        for key, answers in by_key(records).items():
            xs = [json.loads(record.value)["x"] for record in answers]
            order += xs != sorted(xs)
            order += any(x % self.n_keys != int(key[1:]) for x in xs)
        for record in records:
            value, version = json.loads(record.value), int(header(record, VERSION))
            factor, offset = LAWS[version]
            versions[version] += 1
            # The shortest text of a float32 is not that of the float64 of the same value.
            y = np.float32(value["y"])
            if y != np.float32(factor * value["x"] + offset):
                wrong += 1
                said = [other for other, (factor, offset) in LAWS.items() if y == np.float32(factor * value["x"] + offset)]
                strange[version, *said] += 1
        print(f"{len(records):,} records out of {self.n:,}: {len(twice)} twice, {len(lost)} lost, {order} keys out of order, {wrong} wrong")
        shown = set(twice[:3])
        self.show(record for record in records if json.loads(record.value)["x"] in shown)
        print("answers by version:", ", ".join(f"{version}: {n:,}" for version, n in sorted(versions.items())))
        for (version, *said), n in strange.items():
            print(f"{n:,} answers are said to be of version {version} and are those of {said or 'none'}")
        print("fire:", ", ".join(f"{n} {what}" for what, n in sorted(self.counts.items())))
        swapped = {min(LAWS), max(LAWS)} <= set(versions) if self.is_short else set(versions) == set(LAWS)
        return not (twice or lost or order or wrong) and len(records) == self.n and swapped

    def show(self, records):
        """Where answers stand, and what they answer."""
        for record in records:
            places = [header(record, f"salver-source-{name}") for name in ("partition", "offset")]
            print(f"  {record.key.decode()} {record.value.decode()}: {record.partition}/{record.offset}, answers {'/'.join(places)}")

    def check_protocol(self):
        """Scorers that fell back would show the other protocol."""
        logs = list(self.folder.glob("scorer-*/stream-*.log"))
        assert len(logs) == self.n_started, f"{len(logs)} logs of {self.n_started} scorers"
        fallen = [log.parent.name for log in logs if FALLEN_BACK in log.read_text(errors="replace")]
        assert not fallen, f"{fallen} joined with the classic protocol"

    def end(self):
        if self.reader is not None:
            self.reader.close()
        for scorer in self.scorers:
            scorer.kill()


def run(n, n_keys, seed, protocol, name="fire"):
    """Whether it was sound; `None` where there is no broker."""
    kafka = Kafka.start(name, "--brokers", 3)
    if kafka is None:
        return None
    with contextlib.ExitStack() as stack:
        stack.callback(kafka.stop)
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="fire-"))
        print(
            f"{protocol} protocol, seed {seed}: {n:,} records of {n_keys:,} keys over {PARTITIONS} partitions, 3 brokers, {SCORERS} scorers",
            flush=True,
        )
        fire = Fire(kafka, folder, seed, n, n_keys, protocol)
        stack.callback(fire.end)
        fire.feed(range(fire.n_first))
        start = time.monotonic()
        fire.burn()
        print(f"scored in {time.monotonic() - start:.0f} s")
        fire.check_protocol()
        return fire.check()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=None, help="default: a new one, which is printed")
    parser.add_argument(
        "--protocol", choices=[*PROTOCOLS, "both"], default="consumer",
        help="how the group shares partitions; default: consumer, as where nothing is set and brokers are of 4.0 or later",
    )
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--keys", type=int, default=2000)
    given = parser.parse_args()
    seed = given.seed if given.seed is not None else random.SystemRandom().randrange(1 << 32)
    status = 0
    for protocol in PROTOCOLS if given.protocol == "both" else [given.protocol]:
        sound = run(given.records, given.keys, seed, protocol)
        if sound is None:
            print("Java or Maven is not installed, so there is no broker", file=sys.stderr)
            return 3
        print("exactly once, in order, and right" if sound else f"FAILED with --protocol {protocol} --seed {seed}", flush=True)
        status = status if sound else 1
    return status


if __name__ == "__main__":
    sys.exit(main())
