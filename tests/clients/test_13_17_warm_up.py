"""Conformance 17: the warm-up file is replayed before a version becomes available."""

import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

import graphs
from server import floats, predict_request, wait_for


def record(alias="x", signature=""):
    log = prediction_log_pb2.PredictionLog()
    # The name and the version of a record are not looked at; its signature is.
    log.predict_log.request.CopyFrom(predict_request("any", {alias: floats(1.0)}, signature=signature))
    return log.SerializeToString()


def session_run():
    log = prediction_log_pb2.PredictionLog()
    log.session_run_log.request.model_spec.name = "any"
    return log.SerializeToString()


CASES = {
    "good": ([record()] * 3, "AVAILABLE"),
    "a_thousand": ([record()] * 1000, "AVAILABLE"),
    "no_record": ([], "AVAILABLE"),
    "no_type": ([b""], "AVAILABLE"),
    "unknown_input": ([record(), record(alias="z")], "END"),
    "unknown_signature": ([record(signature="nope")], "END"),
    "a_thousand_and_one": ([record()] * 1001, "END"),
    "unsupported_type": ([session_run()], "END"),
    "no_protobuf": ([b"\xff\xff\xff"], "END"),
}


def write(folder, records):
    made = graphs.affine().SerializeToString()
    version = folder / "1"
    hidden = folder / ".tmp"
    (hidden / "assets.extra").mkdir(parents=True)
    (hidden / "model.onnx").write_bytes(made)
    with tf.io.TFRecordWriter(str(hidden / "assets.extra" / "tf_serving_warmup_requests")) as file:
        for content in records:
            file.write(content)
    hidden.rename(version)


@pytest.mark.parametrize("case", CASES)
def test_13_17_warm_up(serve, tmp_path, case):
    records, state = CASES[case]
    write(tmp_path / "m", records)
    server = serve(tmp_path / "m", wait="live")
    wait_for(lambda: server.state("m", 1) in ("AVAILABLE", "END"), "the load is over")
    found = server.states("m")[1]
    assert found[0] == state, found
    assert (found[1] != 0) == (state == "END")


def test_13_17_a_torn_file_is_an_error(serve, tmp_path):
    write(tmp_path / "m", [record()] * 3)
    path = tmp_path / "m" / "1" / "assets.extra" / "tf_serving_warmup_requests"
    path.write_bytes(path.read_bytes()[:-2])
    server = serve(tmp_path / "m", wait="live")
    server.wait_state("m", 1, "END")


def test_13_17_warm_up_can_be_turned_off(serve, tmp_path):
    write(tmp_path / "m", [record(alias="z")])
    server = serve(tmp_path / "m", "--enable_model_warmup=false")
    assert server.predict("m", {"x": floats(2.0)}).outputs["y"].float_val == [3.0]
