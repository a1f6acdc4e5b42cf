"""Windows per key, restored after crashes, and joins with a compacted topic."""

import csv
import json

import numpy as np
import pytest
from confluent_kafka import Producer

from broker import by_key
from streaming import values
import models

ROWS = 5


def window(kafka, more="", rows=ROWS, store=None, changelog=None):
    changelog = changelog or kafka.topic("changelog", 4, cleanup_policy="compact")
    folder = f'store = "{store}"' if store else ""
    return f"""
        [window]
        input = "grid"
        rows = {rows}
        changelog = "{changelog}"
        {folder}
        {more}
        [[input.tensors]]
        input = "grid"
        fields = ["a", "b"]
        [[output.fields]]
        output = "total"
    """


def readings(n, n_keys):
    """Numbers that tell keys and times apart, and whose sums floats hold."""
    rows = [{"key": f"k{i % n_keys}", "n": i // n_keys, "a": i % n_keys, "b": i // n_keys} for i in range(n)]
    return [{"key": row["key"], "value": json.dumps(row)} for row in rows]


def check_totals(answers, n, n_keys):
    """Every row from the first full window on has the sum of its key's last rows."""
    for key, records in by_key(answers).items():
        k = int(key[1:])
        per_key = len(range(k, n, n_keys))
        found = values(records)
        assert [value["n"] for value in found] == list(range(ROWS - 1, per_key)), key
        for value in found:
            last = range(value["n"] - ROWS + 1, value["n"] + 1)
            assert value["total"] == ROWS * k + sum(last)
    assert len(by_key(answers)) == min(n_keys, n)


@pytest.mark.parametrize("stored", [False, True], ids=["memory", "store"])
def test_windows_survive_kills(pipe, model, kafka, tmp_path, stored):
    n, n_keys = 12_000, 40
    config = window(kafka, store=tmp_path / "store" if stored else None)
    pipe = pipe("--model", model(models.grid(ROWS, 2)), "--delivery", "exactly_once", partitions=4, config=config)
    pipe.send(readings(n, n_keys))
    for i in (1, 2):
        running = pipe.start()
        pipe.read(n * i // 4)
        running.kill()
    pipe.start()
    pipe.drained()
    check_totals(kafka.read_all(pipe.sink), n, n_keys)


def test_a_partition_waits_for_what_a_killed_scorer_left_open_and_no_other_does(pipe, model, kafka):
    """Another client stands for the scorer: a transaction of it is open in one partition of the changelog."""
    n, n_keys = 400, 40
    changelog = kafka.topic("changelog", 2, cleanup_policy="compact")
    config = window(kafka, changelog=changelog)
    pipe = pipe("--model", model(models.grid(ROWS, 2)), "--delivery", "exactly_once", partitions=2, config=config)
    killed = Producer({"bootstrap.servers": kafka.bootstrap, "transactional.id": changelog, "transaction.timeout.ms": 600_000})
    killed.init_transactions(30)
    killed.begin_transaction()
    killed.produce(changelog, key=b"not decided", value=b"not decided", partition=0)
    killed.flush(30)
    pipe.send(readings(n, n_keys))
    other = [record.key for record in kafka.read_all(pipe.source) if record.partition == 1]
    running = pipe.start(wait=False)
    answers = pipe.read(len(other) - len(set(other)) * (ROWS - 1))
    assert {record.key for record in answers} == set(other)
    status, text = running.get("/readyz")
    assert status == 503 and "windows of 1 partitions" in text, text
    assert running.get("/livez")[0] == 200
    # It is heeded at once.
    assert running.stop(timeout=10) == 0
    killed.abort_transaction(30)
    pipe.start()
    pipe.drained()
    check_totals(kafka.read_all(pipe.sink), n, n_keys)


def test_windows_move_with_their_partitions(pipe, model, kafka):
    n, n_keys = 12_000, 40
    pipe = pipe("--model", model(models.grid(ROWS, 2)), "--delivery", "exactly_once", partitions=4, config=window(kafka))
    records = readings(n, n_keys)
    pipe.send(records[: n // 2])
    first = pipe.start()
    pipe.read(n // 8)
    pipe.start()
    pipe.send(records[n // 2 :])
    assert first.stop() == 0
    pipe.drained()
    check_totals(kafka.read_all(pipe.sink), n, n_keys)


def test_the_weather_model_is_fed_row_by_row(pipe, kafka, testdata):
    """120 hours of 14 measurements, against the same model asked with whole windows."""
    import tensorflow as tf

    with open(testdata / "jena" / "jena_climate_2018.csv", newline="", encoding="latin-1") as file:
        rows = list(csv.reader(file))[1:]
    table = np.array([row[1:15] for row in rows[::6]][:300], np.float32)
    table = (table - table.mean(axis=0)) / table.std(axis=0)
    folder = testdata / "jena" / "savedmodel" / "weather" / "2"
    signature = tf.saved_model.load(str(folder)).signatures["serving_default"]
    (name,) = signature.structured_input_signature[1]
    (output,) = signature.structured_outputs
    windows = np.stack([table[i : i + 120] for i in range(len(table) - 119)])
    wanted = np.ravel(signature(**{name: tf.constant(windows)})[output].numpy())

    config = f"""
        [window]
        input = "{name}"
        rows = 120
        changelog = "{kafka.topic("changelog", 1, cleanup_policy="compact")}"
        [[input.tensors]]
        input = "{name}"
        field = "row"
        [[output.fields]]
        output = "{output}"
        name = "forecast"
    """
    pipe = pipe("--model", folder, partitions=1, config=config)
    pipe.send([{"key": "jena", "value": json.dumps({"hour": i, "row": row.tolist()})} for i, row in enumerate(table)])
    pipe.start()
    answers = values(pipe.read(len(wanted)))
    assert [answer["hour"] for answer in answers] == list(range(119, 300))
    assert np.ravel([answer["forecast"] for answer in answers]) == pytest.approx(wanted, abs=1e-4)


def test_a_join_with_the_last_value_of_a_compacted_topic(pipe, model, kafka):
    table = kafka.topic("customers", 2, cleanup_policy="compact")
    kafka.send(table, [{"key": f"c{i}", "value": json.dumps({"limit": i})} for i in range(50)])
    kafka.send(table, [{"key": f"c{i}", "value": json.dumps({"limit": 100 + i})} for i in range(25)])
    kafka.send(table, [{"key": "c49", "value": None}])
    config = f"""
        [[join]]
        name = "customer"
        from = "{kafka.address(table)}"
        on = "customer_id"
        [[input.tensors]]
        input = "a"
        field = "amount"
        [[input.tensors]]
        input = "b"
        field = "customer.limit"
        missing = -1.0
        [[output.fields]]
        output = "sum"
    """
    pipe = pipe("--model", model(models.pair()), partitions=2, config=config)
    pipe.send([{"key": f"r{i}", "value": json.dumps({"customer_id": f"c{i}", "amount": 1000})} for i in range(60)])
    pipe.start()
    sums = {int(record.key[1:]): json.loads(record.value)["sum"] for record in pipe.read(60)}
    limits = {i: (100 + i if i < 25 else i if i < 49 else -1) for i in range(60)}
    assert sums == {i: 1000 + limit for i, limit in limits.items()}
    # What changes in the table is used for what comes after it.
    kafka.send(table, [{"key": "c59", "value": json.dumps({"limit": 7})}])
    answer = None
    for attempt in range(100):
        pipe.send([{"key": "again", "value": json.dumps({"customer_id": "c59", "amount": 1000})}])
        answer = json.loads(pipe.read(61 + attempt)[-1].value) if attempt == 0 else answer
        found = [json.loads(record.value)["sum"] for record in pipe.read(61 + attempt) if record.key == b"again"]
        if found[-1] == 1007 or 1007 in found:
            return
    raise AssertionError("the changed value was not used")
