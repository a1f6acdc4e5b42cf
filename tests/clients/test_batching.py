"""Joining requests: right answers whatever is sent together, sizes, padding, splitting, and TensorFlow Serving's files."""

import concurrent.futures
import re
import threading

import grpc
import numpy as np
import pytest
from onnx import TensorProto, helper

import graphs
from server import arrays, check_error, floats, refused, wait_for
from test_13_20_metrics import find, parse

NUMPY = {
    "float": np.float32,
    "half": np.float16,
    "int8": np.int8,
    "uint8": np.uint8,
    "int32": np.int32,
    "int64": np.int64,
    "bool": np.bool_,
}

# Nothing runs where it was decoded, and requests wait a little for others, so that batches form however slow clients are.
JOINED = """
[batching]
inline_below_us = 0
batch_timeout_ms = 20
"""


def metrics(server):
    return parse(server.get("/metrics").text)[0]


def wide(dtype=TensorProto.FLOAT):
    """y = x, for rows of any length."""
    return graphs.identity(dtype, ["batch", "length"])


def lookup(n=100):
    """y = the element of a table at x; an x beyond it is an error that only a run finds."""
    table = np.arange(n, dtype=np.float32) * 10
    nodes = [helper.make_node("Gather", ["table", "x"], ["y"])]
    types = [("x", TensorProto.INT64, ["batch"])], [("y", TensorProto.FLOAT, ["batch"])]
    return graphs.model(nodes, *types, [("table", table)])


def mean():
    """y = x minus the mean of all rows: what a row is answered depends on what else is in the request."""
    nodes = [helper.make_node("ReduceMean", ["x"], ["m"], axes=[0], keepdims=1), helper.make_node("Sub", ["x", "m"], ["y"])]
    return graphs.model(nodes, [("x", TensorProto.FLOAT, ["batch"])], [("y", TensorProto.FLOAT, ["batch"])])


def at_once(calls):
    """The results of all calls, made at the same time; errors are results."""
    barrier = threading.Barrier(len(calls))

    def one(call):
        barrier.wait()
        try:
            return call()
        except grpc.RpcError as error:
            return error

    with concurrent.futures.ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(one, calls))


def many(calls, n_threads=16):
    with concurrent.futures.ThreadPoolExecutor(n_threads) as pool:
        return list(pool.map(lambda call: call(), calls))


def test_batching_mixes_no_rows_of_any_type_and_shape(serve, tmp_path):
    for name, dtype in graphs.DTYPES.items():
        graphs.save(wide(dtype), tmp_path / "m" / name)
    config = tmp_path / "config.toml"
    config.write_text(JOINED)
    server = serve(tmp_path / "m", f"--config={config}")
    random = np.random.default_rng(7)

    def call(at):
        name = list(NUMPY)[at % len(NUMPY)]
        shape = random.integers(1, 4), (3, 3, 3, 5, 8)[at % 5]
        x = random.integers(0, 100, shape).astype(NUMPY[name])
        if at % 2:
            body = {"inputs": x.astype(float if name in ("float", "half") else x.dtype).tolist()}
            if name == "half":
                # REST of TensorFlow Serving has no half.
                body = None
        else:
            body = None

        def ask():
            if body is None:
                got = arrays(server.predict(name, {"x": x}))["y"]
            else:
                answer = server.rest_predict(name, body)
                assert answer.status_code == 200, answer.text
                got = np.array(answer.json()["outputs"], x.dtype)
            np.testing.assert_array_equal(got, x)

        return ask

    many([call(at) for at in range(420)])
    values = metrics(server)
    n_runs = sum(find(values, "salver_batch_size_count", model_name=name) for name in NUMPY)
    n_rows = sum(find(values, "salver_batch_size_sum", model_name=name) for name in NUMPY)
    assert 0 < n_runs < 420 < n_rows, "requests were joined"


def test_batching_a_poisoned_request_fails_alone(serve, tmp_path):
    graphs.save(lookup(), tmp_path / "m")
    (tmp_path / "m" / "salver.toml").write_text(JOINED)
    server = serve(tmp_path / "m")

    def call(at):
        bad = at % 50 == 49
        x = np.array([1000 if bad else at % 100], np.int64)

        def ask():
            if bad:
                with pytest.raises(grpc.RpcError) as raised:
                    server.predict("m", {"x": x})
                assert raised.value.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.INTERNAL)
            else:
                np.testing.assert_array_equal(arrays(server.predict("m", {"x": x}))["y"], x * 10)

        return ask

    many([call(at) for at in range(400)])
    values = metrics(server)
    assert find(values, "salver_batches_retried_total", model_name="m") >= 1
    assert find(values, "salver_batch_size_count", model_name="m") < 400


def test_batching_rows_that_depend_on_each_other_are_not_joined(serve, tmp_path):
    graphs.save(mean(), tmp_path / "m")
    (tmp_path / "m" / "salver.toml").write_text(JOINED)
    server = serve(tmp_path / "m")
    assert "requests are not joined: output 0 of a row is another when the row is joined with others" in server.log()
    for answer in at_once([lambda at=at: arrays(server.predict("m", {"x": floats(at, at + 2)}))["y"] for at in range(8)]):
        np.testing.assert_array_equal(answer, floats(-1, 1))


def test_batching_is_on_and_can_be_turned_off(serve, tmp_path):
    for name in ("plain", "own", "alone"):
        graphs.save(wide(), tmp_path / "m" / name)
    (tmp_path / "m" / "own" / "salver.toml").write_text("max_batch_size = 32")
    (tmp_path / "m" / "alone" / "salver.toml").write_text("[batching]\nmode = 'off'")
    for flags, expected in (
        ([], (128, 32, 1)),
        (["--max_batch_size=16"], (16, 16, 1)),
        (["--batching=off"], (1, 1, 1)),
        (["--enable_batching"], (1000, 1000, 1000)),
        (["--enable_per_model_batching_parameters"], (1, 1, 1)),
    ):
        server = serve(tmp_path / "m", *flags)
        values = metrics(server)
        found = tuple(find(values, "salver_max_batch_size", model_name=name) for name in ("plain", "own", "alone"))
        assert found == expected, flags
        server.stop()


def test_batching_costs_are_known_before_the_first_request(serve, tmp_path):
    graphs.save(wide(), tmp_path / "m")
    server = serve(tmp_path / "m")
    values = metrics(server)
    for rows in ("1", "2", "4", "8"):
        labels = {"model_name": "m", "version": "1", "signature": "serving_default", "rows": rows}
        low, high = (find(values, "salver_batch_cost_seconds", quantile=q, **labels) for q in ("0.5", "0.99"))
        assert 0 < low <= high
    assert find(values, "salver_cost_model_steady", model_name="m") == 1
    assert find(values, "salver_concurrency_limit", model_name="m") >= 1
    server.stop()
    server = serve(tmp_path / "m", "--batch_trial_ms=0")
    known = {int(dict(pairs)["rows"]) for name, pairs in metrics(server) if name == "salver_batch_cost_seconds"}
    assert known and max(known) <= 4, "only what the check of the rows' independence ran"


def test_batching_splits_large_requests(serve, tmp_path):
    graphs.save(wide(), tmp_path / "m")
    settings = tmp_path / "m" / "salver.toml"
    settings.write_text("max_batch_size = 4\n[batching]\ninline_below_us = 0\nmax_request_rows = 11")
    server = serve(tmp_path / "m")
    x = np.arange(22, dtype=np.float32).reshape(11, 2)
    np.testing.assert_array_equal(arrays(server.predict("m", {"x": x}))["y"], x)
    assert find(metrics(server), "salver_requests_split_total", model_name="m") == 1
    text = "Task size 12 is larger than maximum input batch size 11, which max_request_rows"
    with refused("INVALID_ARGUMENT", text):
        server.predict("m", {"x": np.ones((12, 2), np.float32)})
    check_error(server.rest_predict("m", {"instances": [[0.0]] * 12}), 400, text)
    settings.write_text("max_batch_size = 4\n[batching]\nsplit = false")
    wait_for(lambda: "m/1: split true -> false" in server.log(), "the new setting")
    with refused("INVALID_ARGUMENT", "Task size 11 is larger than maximum input batch size 4"):
        server.predict("m", {"x": x})


@pytest.mark.parametrize(
    "padding, expected",
    [
        # Each shape runs with its own.
        ('"off"', [[1, 2, 3], [4, 5, 6, 7]]),
        # Filled up with the first element, as TensorFlow Serving does, which leaves what is added in the answer.
        ('"longest"', [[1, 2, 3, 1], [4, 5, 6, 7]]),
        # Filled up with zeros, which are cut off the answer.
        ("[8, 16]", [[1, 2, 3], [4, 5, 6, 7]]),
    ],
)
def test_batching_padding(serve, tmp_path, padding, expected):
    graphs.save(wide(), tmp_path / "m")
    # Two rows are a batch, and a row that finds no other waits for long.
    wait = 0 if padding == '"off"' else 20_000
    own = f"max_batch_size = 2\n[batching]\ninline_below_us = 0\nbatch_timeout_ms = {wait}\npadding = {padding}"
    (tmp_path / "m" / "salver.toml").write_text(own)
    server = serve(tmp_path / "m")
    rows = [floats(1, 2, 3), floats(4, 5, 6, 7)]
    calls = [lambda row=row: arrays(server.predict("m", {"x": row.reshape(1, -1)}))["y"] for row in rows]
    for got, row in zip(at_once(calls), expected):
        assert got.tolist() == [row]
    n_runs = find(metrics(server), "salver_batch_size_count", model_name="m")
    assert n_runs == (2 if padding == '"off"' else 1)


def write_parameters(path, text):
    path.write_text(text)
    return f"--batching_parameters_file={path}"


def test_batching_parameters_of_tensorflow_serving(serve, tmp_path):
    graphs.save(wide(), tmp_path / "m")
    file = write_parameters(
        tmp_path / "batching.txt",
        "max_batch_size { value: 2 } batch_timeout_micros { value: 20000000 } allowed_batch_sizes: [1, 2] "
        "num_batch_threads { value: 1 } pad_variable_length_inputs: true",
    )
    server = serve(tmp_path / "m", "--enable_batching", file)
    rows = [floats(1, 2, 3), floats(4, 5, 6, 7)]
    calls = [lambda row=row: arrays(server.predict("m", {"x": row.reshape(1, -1)}))["y"] for row in rows]
    # A request alone would wait 20 s for another.
    assert [got.tolist() for got in at_once(calls)] == [[[1, 2, 3, 1]], [[4, 5, 6, 7]]]
    with refused("INVALID_ARGUMENT", "Task size 3 is larger than maximum input batch size 2"):
        server.predict("m", {"x": np.ones((3, 2), np.float32)})
    values = metrics(server)
    name = ":tensorflow:serving:batching_session:"
    assert find(values, name + "wrapped_run_count") == 1
    assert find(values, name + "processed_batch_size_sum") == 2


def test_batching_parameters_split(serve, tmp_path):
    graphs.save(wide(), tmp_path / "m")
    file = write_parameters(
        tmp_path / "batching.txt",
        "max_batch_size { value: 8 } enable_large_batch_splitting { value: true } max_execution_batch_size { value: 4 }",
    )
    server = serve(tmp_path / "m", "--enable_batching", file)
    x = np.arange(8, dtype=np.float32).reshape(8, 1)
    np.testing.assert_array_equal(arrays(server.predict("m", {"x": x}))["y"], x)
    with refused("INVALID_ARGUMENT", "Task size 9 is larger than maximum input batch size 8"):
        server.predict("m", {"x": np.ones((9, 1), np.float32)})


def test_batching_parameters_per_model(serve, tmp_path):
    for name in ("a", "b", "bad"):
        graphs.save(wide(), tmp_path / "m" / name)
    (tmp_path / "m" / "a" / "1" / "batching_params.pbtxt").write_text("max_batch_size { value: 6 }")
    wrong = "max_batch_size { value: 6 } allowed_batch_sizes: [2, 4]"
    (tmp_path / "m" / "bad" / "1" / "batching_params.pbtxt").write_text(wrong)
    server = serve(tmp_path / "m", "--enable_per_model_batching_parameters", wait="live")
    server.wait_state("a", 1, "AVAILABLE")
    server.wait_state("b", 1, "AVAILABLE")
    server.wait_state("bad", 1, "END")
    (_, code, message) = server.states("bad")[1]
    text = "Last entry in allowed_batch_sizes must match max_batch_size; last entry was 4; expected 6"
    assert code == grpc.StatusCode.INVALID_ARGUMENT.value[0] and text in message
    values = metrics(server)
    assert [find(values, "salver_max_batch_size", model_name=name) for name in "ab"] == [6, 1]


def test_batching_settings_change_while_models_are_served(serve, tmp_path):
    for name in ("a", "b"):
        graphs.save(wide(), tmp_path / "m" / name)
    config = tmp_path / "config.toml"
    config.write_text("max_batch_size = 64\n[models.b]\nmax_batch_size = 10")
    server = serve(tmp_path / "m", f"--config={config}")

    def sizes():
        values = metrics(server)
        return [find(values, "salver_max_batch_size", model_name=name) for name in "ab"]

    def said(text):
        return wait_for(lambda: text in server.log(), text)

    assert sizes() == [64, 10]
    config.write_text("max_batch_size = 32\n[batching]\ntimeout_ms = 60000\n[models.b]\nmax_batch_size = 10")
    said("model a/1: max_batch_size 64 -> 32")
    said("model a/1: timeout none -> 60s")
    said("model b/1: timeout none -> 60s")
    assert sizes() == [32, 10]
    # The nearer file counts.
    (tmp_path / "m" / "a" / "salver.toml").write_text("max_batch_size = 5\nthreads = 2")
    said("model a/1: max_batch_size 32 -> 5")
    said("model a/1: needs a new version or a restart: threads 1 -> 2")
    # What is wrong changes nothing, and is said once.
    (tmp_path / "m" / "a" / "salver.toml").write_text("max_batch_size = 'many'")
    said("model a/1: settings stay as they are: ")
    config.write_text("[batching]\nmode = 'fast'")
    said("settings stay as they are: --config=")
    (tmp_path / "m" / "b" / "salver.toml").write_text("[batching]\nmax_queue = 7")
    said("model b/1: max_queue 1000 -> 7")
    assert sizes() == [5, 10]
    assert len(re.findall("settings stay as they are: --config=", server.log())) == 1
    assert len(re.findall("model a/1: settings stay as they are: ", server.log())) == 1
    np.testing.assert_array_equal(arrays(server.predict("a", {"x": floats(1, 2).reshape(1, 2)}))["y"], [[1, 2]])


def test_batching_files_of_tensorflow_serving_change_while_models_are_served(serve, tmp_path):
    graphs.save(wide(), tmp_path / "m")
    path = tmp_path / "batching.txt"
    file = write_parameters(path, "max_batch_size { value: 64 }")
    server = serve(tmp_path / "m", "--enable_batching", file)
    path.write_text("max_batch_size { value: 32 } num_batch_threads { value: 7 }")
    wait_for(lambda: "model m/1: max_batch_size 64 -> 32" in server.log(), "the new size")
    wait_for(lambda: re.search("needs a new version or a restart: lanes [0-9]+ -> 7", server.log()), "the note")
    server.stop()
    own = tmp_path / "m" / "1" / "batching_params.pbtxt"
    server = serve(tmp_path / "m", "--enable_per_model_batching_parameters")
    own.write_text("max_batch_size { value: 16 }")
    wait_for(lambda: "model m/1: max_batch_size - -> 16" in server.log(), "the new size")


def test_batching_settings_that_are_not_whole_or_not_there_are_not_followed(serve, tmp_path):
    graphs.save(wide(), tmp_path / "m")
    path = tmp_path / "m" / "salver.toml"
    whole = "max_batch_size = 8\n[batching]\nmax_queue = 7\n"
    path.write_text(whole)
    server = serve(tmp_path / "m")
    # What changes at every look is never followed, however long that goes on.
    steps = iter(range(300))

    def write():
        step = next(steps, None)
        path.write_text("max_batch_size = 8\n" + "#" * (step or 0))
        return step is None

    wait_for(write, "300 changes")
    path.write_text(whole.replace("= 7", "= 9"))
    wait_for(lambda: "m/1: max_queue 7 -> 9" in server.log(), "the new setting")
    path.unlink()
    gone = f"m/1: settings stay as they are: {path} is not there any more"
    wait_for(lambda: gone in server.log(), "a word on the file")
    path.write_text(whole.replace("= 8", "= 4"))
    wait_for(lambda: "m/1: max_batch_size 8 -> 4" in server.log(), "the new setting")
    assert len(re.findall("settings stay as they are", server.log())) == 1
    changes = re.findall("m/1: ([a-z_]+ [0-9]+ -> [0-9]+)", server.log())
    assert changes == ["max_queue 7 -> 9", "max_batch_size 8 -> 4", "max_queue 9 -> 7"]


def test_batching_settings_are_looked_at_when_asked_for(serve, tmp_path):
    graphs.save(wide(), tmp_path / "m")
    server = serve(tmp_path / "m", "--file_system_poll_wait_seconds=0")
    (tmp_path / "m" / "salver.toml").write_text("max_batch_size = 3")
    server.process.send_signal(1)
    wait_for(lambda: "model m/1: max_batch_size 128 -> 3" in server.log(), "the new size after SIGHUP")
