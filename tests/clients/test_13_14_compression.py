"""Conformance 14: compressed bodies in both directions, oversize and corrupt ones."""

import gzip
import json

import grpc
import numpy as np
import pytest
import tritonclient.http
import zstandard

from server import arrays, check_error, check_predictions, curl, predict_request

BODY = json.dumps({"instances": [2.0, 4.0]}).encode()
PATH = "/v1/models/half_plus_two:predict"
PACK = {"gzip": gzip.compress, "zstd": zstandard.ZstdCompressor().compress}
UNPACK = {
    "gzip": gzip.decompress,
    "zstd": lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data),
}


@pytest.mark.parametrize("coding", PACK)
def test_13_14_compressed_request(shared, coding):
    check_predictions(shared.post(PATH, PACK[coding](BODY), headers={"Content-Encoding": coding}), [3.0, 4.0])


def test_13_14_gzip_of_several_members(shared):
    body = gzip.compress(BODY[:10]) + gzip.compress(BODY[10:])
    check_predictions(shared.post(PATH, body, headers={"Content-Encoding": "gzip"}), [3.0, 4.0])


@pytest.mark.parametrize("coding", PACK)
def test_13_14_compressed_answer(shared, coding):
    body = json.dumps({"instances": list(range(10_000))})
    answer = shared.request(
        "POST", PATH, data=body, headers={"Accept-Encoding": coding}, stream=True
    )
    assert answer.status_code == 200
    assert answer.headers["Content-Encoding"] == coding
    packed = answer.raw.read(decode_content=False)
    found = json.loads(UNPACK[coding](packed))["predictions"]
    assert found[:2] == [2.0, 2.5] and len(found) == 10_000 and len(packed) < 60_000


def test_13_14_no_compression_unless_asked_for(shared):
    answer = shared.post(PATH, {"instances": list(range(10_000))}, headers={"Accept-Encoding": "identity"})
    assert "Content-Encoding" not in answer.headers


def test_13_14_curl_compressed(shared):
    body = json.dumps({"instances": list(range(10_000))})
    answer = curl("--compressed", "-d", body, shared.base + PATH)
    assert len(json.loads(answer)["predictions"]) == 10_000


@pytest.mark.parametrize("coding", PACK)
@pytest.mark.parametrize(
    "change", [lambda b: b[:-9], lambda b: b[: len(b) // 2], lambda b: b"garbage" + b], ids=["no_end", "half", "garbage"]
)
def test_13_14_corrupt_body(shared, coding, change):
    check_error(shared.post(PATH, change(PACK[coding](BODY)), headers={"Content-Encoding": coding}), 400)
    check_predictions(shared.post(PATH, BODY), [3.0, 4.0])


def test_13_14_a_coding_that_is_not_known(shared):
    answer = shared.post(PATH, BODY, headers={"Content-Encoding": "br"})
    assert answer.status_code in (400, 415)


def test_13_14_a_body_over_the_limit_is_413(serve, models):
    server = serve(models, "--max_body_bytes=100000", "--max_decompressed_bytes=100000")
    big = json.dumps({"instances": [1.0] * 50_000})
    check_error(server.post(PATH, big), 413)
    for coding, pack in PACK.items():
        check_error(server.post(PATH, pack(big.encode()), headers={"Content-Encoding": coding}), 413)
    chunked = server.request("POST", PATH, data=iter([big[:1000].encode(), big[1000:].encode()]))
    assert chunked.status_code == 413
    with pytest.raises(grpc.RpcError) as raised:
        server.predict("half_plus_two", {"x": np.ones(50_000, np.float32)})
    assert raised.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    check_predictions(server.post(PATH, BODY), [3.0, 4.0])


@pytest.mark.parametrize("coding", PACK)
def test_13_14_a_bomb_is_cut_off(serve, models, coding):
    server = serve(models, "--max_decompressed_bytes=1000000")
    check_predictions(server.post(PATH, BODY), [3.0, 4.0])
    bomb = PACK[coding](b'{"instances": [' + b" " * (300 << 20))
    assert len(bomb) < 1_000_000
    before = server.memory("VmHWM")
    for _ in range(3):
        check_error(server.post(PATH, bomb, headers={"Content-Encoding": coding}), 413)
    assert server.memory("VmHWM") < before + (30 << 20)
    check_predictions(server.post(PATH, BODY), [3.0, 4.0])


def test_13_14_grpc_compression(shared):
    request = predict_request("half_plus_two", {"x": np.arange(10_000, dtype=np.float32)})
    answer = shared.predictions.Predict(request, timeout=30, compression=grpc.Compression.Gzip)
    np.testing.assert_allclose(arrays(answer)["y"], np.arange(10_000) * 0.5 + 2)


def test_13_14_tritonclient_compression(shared):
    x = np.arange(10_000, dtype=np.float32)
    tensor = tritonclient.http.InferInput("x", x.shape, "FP32")
    tensor.set_data_from_numpy(x)
    with tritonclient.http.InferenceServerClient(f"127.0.0.1:{shared.rest_port}") as client:
        answer = client.infer(
            "half_plus_two",
            [tensor],
            request_compression_algorithm="gzip",
            response_compression_algorithm="gzip",
        )
    np.testing.assert_allclose(answer.as_numpy("y"), x * 0.5 + 2)
