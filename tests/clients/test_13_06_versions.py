"""Conformance 6, 7, 8 and 18: versions, labels, reload, and a broken version next to a good one."""

import shutil

import grpc
import pytest
from tensorflow_serving.apis import get_model_status_pb2, model_management_pb2
from tensorflow_serving.config import model_server_config_pb2

import graphs
from server import arrays, check_error, check_predictions, floats, refused, wait_for


def value(server, model, **spec):
    """What the model makes of 0: its offset, by which the tests tell versions apart."""
    return arrays(server.predict(model, {"x": floats(0.0)}, **spec))["y"].tolist()


def status_rows(server, path):
    return [
        (row["version"], row["state"], row["status"]["error_code"]) for row in server.get(path).json()["model_version_status"]
    ]


# 6


def test_13_06_status_after_a_roll_from_123_to_124(serve, tmp_path):
    folder = tmp_path / "m"
    graphs.save(graphs.affine(offset=123.0), folder, "00000123")
    server = serve(folder)
    assert server.get("/v1/models/m").json() == {
        "model_version_status": [
            {"version": "123", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        ]
    }
    graphs.save(graphs.affine(offset=124.0), folder, "00000124")
    server.wait_state("m", 124, "AVAILABLE")
    server.wait_state("m", 123, "END")
    assert status_rows(server, "/v1/models/m") == [("124", "AVAILABLE", "OK"), ("123", "END", "OK")]
    assert list(server.states("m")) == [124, 123]
    assert status_rows(server, "/v1/models/m/versions/123") == [("123", "END", "OK")]
    assert value(server, "m") == [124.0]
    with refused("NOT_FOUND", "Servable not found for request: Specific(m, 123)"):
        value(server, "m", version=123)


def test_13_06_status_of_what_is_not_there(shared):
    check_error(shared.get("/v1/models/nope"), 404, "Could not find any versions of model nope")
    check_error(
        shared.get("/v1/models/half_plus_two/versions/7"), 404, "Could not find version 7 of model half_plus_two"
    )
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "nope"
    with refused("NOT_FOUND", "Could not find any versions of model nope"):
        shared.models.GetModelStatus(request, timeout=30)
    request.model_spec.name = "half_plus_two"
    request.model_spec.version.value = 7
    with refused("NOT_FOUND", "Could not find version 7 of model half_plus_two"):
        shared.models.GetModelStatus(request, timeout=30)
    with refused("INVALID_ARGUMENT", "Missing ModelSpec"):
        shared.models.GetModelStatus(get_model_status_pb2.GetModelStatusRequest(), timeout=30)


def test_13_06_names_that_are_no_version_are_passed_over(serve, tmp_path):
    folder = tmp_path / "m"
    graphs.save(graphs.affine(offset=2.0), folder, "2")
    for name in ("backup", "3.tmp", "v4", ".5"):
        shutil.copytree(folder / "2", folder / name)
    server = serve(folder)
    assert list(server.states("m")) == [2]


# 7


def config(folder, **changes):
    """A config of model `m` with versions 1 and 2, labelled stable and canary."""
    entry = model_server_config_pb2.ModelConfig(name="m", base_path=str(folder), model_platform="tensorflow")
    entry.model_version_policy.specific.versions.extend(changes.get("versions", [1, 2]))
    for label, version in changes.get("labels", {"stable": 1, "canary": 2}).items():
        entry.version_labels[label] = version
    return entry


def config_text(folder):
    """The same, as a file that a person writes: commas, both quotes, comments, lists and repeated fields."""
    return f"""
# models
model_config_list: {{
  config {{
    name: 'm',
    base_path: "{folder}"
    model_platform: 'tenso' "rflow"
    model_version_policy {{ specific {{ versions: 1 versions: 2 }} }}
    version_labels {{ key: 'stable' value: 1 }},
    version_labels {{ key: "canary", value: 2 }}
  }}
}}
"""


@pytest.fixture
def two_versions(tmp_path):
    folder = tmp_path / "m"
    for version in (1, 2, 3):
        graphs.save(graphs.affine(offset=version), folder, version)
    return folder


@pytest.fixture
def labelled(serve, two_versions, tmp_path):
    path = tmp_path / "models.config"
    path.write_text(config_text(two_versions))
    server = serve(f"--model_config_file={path}", "--allow_version_labels_for_unavailable_models")
    server.wait_state("m", 1, "AVAILABLE")
    server.wait_state("m", 2, "AVAILABLE")
    return server


def reload(server, *entries):
    request = model_management_pb2.ReloadConfigRequest()
    request.config.model_config_list.config.extend(entries)
    return server.models.HandleReloadConfigRequest(request, timeout=60)


def rest_value(server, path):
    return server.post(path, {"instances": [0.0]}).json()


def test_13_07_a_label_routes_to_its_version(labelled):
    for label, version in (("stable", 1), ("canary", 2)):
        answer = labelled.predict("m", {"x": floats(0.0)}, label=label)
        assert arrays(answer)["y"].tolist() == [float(version)]
        assert answer.model_spec.version.value == version
        assert rest_value(labelled, f"/v1/models/m/labels/{label}:predict") == {"predictions": [float(version)]}
        metadata = labelled.get(f"/v1/models/m/labels/{label}/metadata").json()
        assert metadata["model_spec"]["version"] == str(version)
        assert status_rows(labelled, f"/v1/models/m/labels/{label}") == [(str(version), "AVAILABLE", "OK")]
    assert value(labelled, "m") == [2.0]


def test_13_07_an_unknown_label_is_refused(labelled):
    path = "/v1/models/m/labels/nope:predict"
    check_error(labelled.post(path, {"instances": [0.0]}), 400, "Unrecognized servable version label: nope")
    with refused("INVALID_ARGUMENT", "Unrecognized servable version label: nope"):
        value(labelled, "m", label="nope")


def test_13_07_labels_at_start_need_no_flag(serve, two_versions, tmp_path):
    path = tmp_path / "models.config"
    path.write_text(config_text(two_versions))
    server = serve(f"--model_config_file={path}")
    server.wait_state("m", 2, "AVAILABLE")
    server.wait_state("m", 1, "AVAILABLE")
    wait_for(lambda: "predictions" in rest_value(server, "/v1/models/m/labels/canary:predict"), "the label is applied")
    assert value(server, "m", label="stable") == [1.0]


def test_13_07_a_label_moves_only_to_an_available_version(serve, two_versions, tmp_path):
    path = tmp_path / "models.config"
    path.write_text(config_text(two_versions))
    server = serve(f"--model_config_file={path}")
    server.wait_state("m", 1, "AVAILABLE")
    server.wait_state("m", 2, "AVAILABLE")
    text = "Request to assign label to version 3 of model m, which is not currently available for inference"
    with refused("FAILED_PRECONDITION", text):
        reload(server, config(two_versions, labels={"stable": 1, "canary": 3}))
    reload(server, config(two_versions, versions=[1, 2, 3], labels={"stable": 1, "canary": 2}))
    server.wait_state("m", 3, "AVAILABLE")
    reload(server, config(two_versions, versions=[1, 2, 3], labels={"canary": 3}))
    assert value(server, "m", label="canary") == [3.0]
    with refused("INVALID_ARGUMENT", "Unrecognized servable version label: stable"):
        value(server, "m", label="stable")


# 8


@pytest.fixture
def three_models(tmp_path):
    folder = tmp_path / "models"
    for number, name in enumerate("abc", 1):
        graphs.save(graphs.affine(offset=number), folder / name)
    return folder


def entry(folder, name, platform="tensorflow", path=None):
    return model_server_config_pb2.ModelConfig(
        name=name, base_path=str(folder / name) if path is None else path, model_platform=platform
    )


@pytest.fixture
def reloadable(serve, three_models, tmp_path):
    path = tmp_path / "models.config"
    path.write_text(
        f'model_config_list {{ config {{ name: "a" base_path: "{three_models}/a" model_platform: "tensorflow" }} }}'
    )
    return serve(f"--model_config_file={path}")


def test_13_08_add_remove_replace(reloadable, three_models):
    answer = reload(reloadable, entry(three_models, "a"), entry(three_models, "b"))
    assert answer.status.error_code == 0
    assert (value(reloadable, "a"), value(reloadable, "b")) == ([1.0], [2.0])
    reload(reloadable, entry(three_models, "b"))
    wait_for(lambda: is_gone(reloadable, "a"), "the model left out is no longer served")
    graphs.save(graphs.affine(offset=3.0), three_models / "other", 2)
    reload(reloadable, entry(three_models, "b", path=str(three_models / "other")))
    wait_for(lambda: value(reloadable, "b") == [3.0], "the other folder is served")
    reload(reloadable)
    wait_for(lambda: is_gone(reloadable, "b"), "an empty list serves nothing")


def is_gone(server, model):
    try:
        value(server, model)
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.NOT_FOUND
        assert error.details() == f"Servable not found for request: Latest({model})"
        return True
    return False


REFUSED_CONFIGS = {
    "duplicate": (["a", "a"], {}, "Illegal to list model a multiple times in config list"),
    "relative_path": (["a"], {"path": "models/a"}, "Expected model a to have an absolute path or URI; got base_path()=models/a"),
    "unknown_platform": (["a"], {"platform": "abacus"}, "Model a requests unsupported platform abacus"),
}


@pytest.mark.parametrize("case", REFUSED_CONFIGS)
def test_13_08_a_config_that_is_refused_changes_nothing(reloadable, three_models, case):
    names, changes, text = REFUSED_CONFIGS[case]
    with pytest.raises(grpc.RpcError) as raised:
        reload(reloadable, *(entry(three_models, name, **changes) for name in names))
    assert raised.value.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION)
    assert text in raised.value.details()
    assert value(reloadable, "a") == [1.0]


def test_13_08_only_a_list_of_models_is_supported(reloadable):
    text = "ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList is currently supported"
    request = model_management_pb2.ReloadConfigRequest()
    with pytest.raises(grpc.RpcError) as raised:
        reloadable.models.HandleReloadConfigRequest(request, timeout=30)
    assert raised.value.code() == grpc.StatusCode.INVALID_ARGUMENT and text in raised.value.details()
    request.config.custom_model_config.type_url = "type.googleapis.com/google.protobuf.Empty"
    with refused("INVALID_ARGUMENT", text):
        reloadable.models.HandleReloadConfigRequest(request, timeout=30)


def test_13_08_a_reload_waits_and_names_what_does_not_load(reloadable, three_models):
    graphs.save(graphs.BROKEN, three_models / "broken")
    with pytest.raises(grpc.RpcError) as raised:
        reload(reloadable, entry(three_models, "a"), entry(three_models, "broken"))
    assert "did not become available" in raised.value.details() and "broken" in raised.value.details()
    assert value(reloadable, "a") == [1.0]


def test_13_08_the_file_is_read_again(serve, three_models, tmp_path):
    path = tmp_path / "models.config"

    def write(*names):
        lines = (f'config {{ name: "{n}" base_path: "{three_models}/{n}" model_platform: "tensorflow" }}' for n in names)
        path.write_text(f"model_config_list {{ {' '.join(lines)} }}")

    write("a")
    server = serve(f"--model_config_file={path}", "--model_config_file_poll_wait_seconds=1")
    write("a", "b")
    server.wait_state("b", 1, "AVAILABLE")
    path.write_text("model_config_list {{{")
    wait_for(lambda: str(path) in server.log(), "the error names the file")
    assert (value(server, "a"), value(server, "b")) == ([1.0], [2.0])


# 18


def test_13_18_a_broken_version_leaves_the_good_one_serving(serve, tmp_path):
    folder = tmp_path / "m"
    graphs.save(graphs.affine(offset=1.0), folder, 1)
    server = serve(folder)
    graphs.save(graphs.BROKEN, folder, 2)
    server.wait_state("m", 2, "END")
    states = server.states("m")
    assert states[1][0] == "AVAILABLE"
    assert states[2][1] != 0 and states[2][2], "the error is visible"
    assert value(server, "m") == [1.0]
    rows = server.get("/v1/models/m").json()["model_version_status"]
    assert rows[0]["version"] == "2" and rows[0]["status"]["error_code"] != "OK"
    graphs.save(graphs.affine(offset=3.0), folder, 3)
    server.wait_state("m", 3, "AVAILABLE")
    assert value(server, "m") == [3.0]


def test_13_18_a_failed_version_is_tried_again_when_its_files_change(serve, tmp_path):
    folder = tmp_path / "m"
    graphs.save(graphs.affine(offset=1.0), folder, 1)
    server = serve(folder)
    graphs.save(graphs.BROKEN, folder, 2)
    server.wait_state("m", 2, "END")
    (folder / "2" / "model.onnx").write_bytes(graphs.affine(offset=2.0).SerializeToString())
    server.wait_state("m", 2, "AVAILABLE")
    assert value(server, "m") == [2.0]


def test_13_18_broken_and_missing_models_do_not_stop_others(serve, tmp_path):
    graphs.save(graphs.affine(offset=1.0), tmp_path / "good")
    graphs.save(graphs.BROKEN, tmp_path / "broken")
    path = tmp_path / "models.config"
    names = ("missing", "broken", "good")
    lines = (f'config {{ name: "{n}" base_path: "{tmp_path}/{n}" model_platform: "tensorflow" }}' for n in names)
    path.write_text(f"model_config_list {{ {' '.join(lines)} }}")
    server = serve(f"--model_config_file={path}", wait="live")
    server.wait_state("good", 1, "AVAILABLE")
    assert value(server, "good") == [1.0]
    server.wait_state("broken", 1, "END")
    ready = server.get("/readyz")
    assert ready.status_code == 503
    assert "missing" in ready.text and "broken" in ready.text
    assert server.get("/v2/models/good/ready").status_code == 200
    assert server.get("/v2/models/broken/ready").status_code != 200
    graphs.save(graphs.affine(offset=7.0), tmp_path / "missing")
    server.wait_state("missing", 1, "AVAILABLE")
    assert value(server, "missing") == [7.0]


def test_13_18_a_half_copied_version_is_waited_for(serve, tmp_path):
    folder = tmp_path / "m"
    graphs.save(graphs.affine(offset=1.0), folder, 1)
    server = serve(folder)
    content = graphs.affine(offset=2.0).SerializeToString()
    (folder / "2").mkdir()
    target = folder / "2" / "model.onnx"
    with open(target, "wb", buffering=0) as file:
        for i in range(len(content)):
            file.write(content[i : i + 1])
            assert value(server, "m") == [1.0]
    server.wait_state("m", 2, "AVAILABLE")
    assert "error" not in str(server.states("m")[2][2]).lower()
