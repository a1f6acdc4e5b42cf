"""Conformance 13: metadata over REST and gRPC."""

import pytest
from google.protobuf import json_format
from tensorflow.core.framework import types_pb2
from tensorflow_serving.apis import get_model_metadata_pb2

from server import check_error, refused


def tensor(name, dtype, *dims):
    return {"name": name, "dtype": dtype, "dims": [str(dim) for dim in dims]}


def plain(infos):
    """Alias -> what the golden files say of a tensor, without the names of dimensions."""
    found = {}
    for alias, info in infos.items():
        shape = info["tensor_shape"]
        assert shape["unknown_rank"] is False
        assert set(info) == {"dtype", "tensor_shape", "name"}
        assert all(set(dim) == {"size", "name"} for dim in shape["dim"])
        found[alias] = tensor(info["name"].removesuffix(":0"), info["dtype"], *(dim["size"] for dim in shape["dim"]))
    return found


def test_13_13_rest_metadata(shared):
    answer = shared.get("/v1/models/add/metadata").json()
    assert answer["model_spec"] == {"name": "add", "signature_name": "", "version": "1"}
    assert set(answer) == {"model_spec", "metadata"}
    signatures = answer["metadata"]["signature_def"]["signature_def"]
    assert set(signatures) == {"serving_default"}
    signature = signatures["serving_default"]
    assert set(signature) == {"inputs", "outputs", "method_name", "defaults"}
    assert plain(signature["inputs"]) == {n: tensor(n, "DT_FLOAT", -1) for n in ("a", "b")}
    assert plain(signature["outputs"]) == {n: tensor(n, "DT_FLOAT", -1) for n in ("sum", "product")}
    assert signature["method_name"] == "tensorflow/serving/predict"
    assert signature["defaults"] == {}
    for path in ("/v1/models/add/versions/1/metadata",):
        assert shared.get(path).json() == answer


@pytest.mark.parametrize(
    ("model", "dtype", "dims"),
    [
        ("grid", "DT_FLOAT", (-1, 3)),
        ("fixed", "DT_FLOAT", (2, 3)),
        ("scalar", "DT_FLOAT", ()),
        ("identity_int64", "DT_INT64", (-1,)),
        ("identity_uint8", "DT_UINT8", (-1,)),
        ("identity_bool", "DT_BOOL", (-1,)),
        ("identity_half", "DT_HALF", (-1,)),
    ],
)
def test_13_13_types_and_shapes(shared, model, dtype, dims):
    answer = shared.get(f"/v1/models/{model}/metadata").json()
    signature = answer["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert plain(signature["inputs"]) == {"x": tensor("x", dtype, *dims)}
    assert plain(signature["outputs"]) == {"y": tensor("y", dtype, *dims)}


def test_13_13_an_undeclared_shape_has_unknown_rank(shared):
    answer = shared.get("/v1/models/half_plus_two_any/metadata").json()
    signature = answer["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert signature["inputs"]["x"]["tensor_shape"] == {"dim": [], "unknown_rank": True}


def test_13_13_grpc_metadata_says_the_same(shared):
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "add"
    answer = shared.predictions.GetModelMetadata(request, timeout=30)
    assert (answer.model_spec.name, answer.model_spec.version.value) == ("add", 1)
    any_value = answer.metadata["signature_def"]
    assert any_value.type_url == "type.googleapis.com/tensorflow.serving.SignatureDefMap"
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert any_value.Unpack(signatures)
    signature = signatures.signature_def["serving_default"]
    assert signature.inputs["a"].dtype == types_pb2.DT_FLOAT
    rest = shared.get("/v1/models/add/metadata").json()["metadata"]["signature_def"]
    options = {"preserving_proto_field_name": True, "always_print_fields_with_no_presence": True}
    found = json_format.MessageToDict(signatures, **options)
    for sides in (found, rest):
        for defs in sides["signature_def"].values():
            for infos in (defs["inputs"], defs["outputs"]):
                for info in infos.values():
                    info.pop("quantization", None)
    assert found["signature_def"]["serving_default"]["inputs"] == rest["signature_def"]["serving_default"]["inputs"]
    assert found["signature_def"]["serving_default"]["outputs"] == rest["signature_def"]["serving_default"]["outputs"]


def test_13_13_grpc_metadata_failures(shared):
    def ask(name, *fields):
        request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=fields)
        if name is not None:
            request.model_spec.name = name
        return shared.predictions.GetModelMetadata(request, timeout=30)

    with refused("INVALID_ARGUMENT", "GetModelMetadataRequest must specify at least one metadata_field"):
        ask("add")
    with refused("INVALID_ARGUMENT", "Metadata field other is not supported"):
        ask("add", "other")
    with refused("INVALID_ARGUMENT", "Missing ModelSpec"):
        ask(None, "signature_def")
    with refused("NOT_FOUND", "Servable not found for request: Latest(nope)"):
        ask("nope", "signature_def")
    check_error(shared.get("/v1/models/nope/metadata"), 404, "Servable not found for request: Latest(nope)")
