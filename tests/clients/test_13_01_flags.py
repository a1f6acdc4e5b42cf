"""Conformance 1 and 2: the command line of TensorFlow Serving, under its name, and its container contract."""

import subprocess

import pytest

import graphs
from server import BINARY, check_predictions, wait_for


@pytest.fixture
def drop_in(tmp_path):
    """The binary under the name that makes it a drop-in."""
    path = tmp_path / "tensorflow_model_server"
    path.symlink_to(BINARY)
    return [path]


@pytest.fixture
def model(tmp_path):
    graphs.save(graphs.affine(), tmp_path / "m")
    return tmp_path / "m"


FLAGS = [
    "--rest_api_num_threads=8",
    "--rest_api_timeout_in_ms=30000",
    "--rest_api_enable_cors_support=false",
    "--enable_batching=false",
    "--enable_per_model_batching_parameters=false",
    "--allow_version_labels_for_unavailable_models=true",
    "--model_config_file=",
    "--model_config_file_poll_wait_seconds=0",
    "--num_load_threads=2",
    "--num_unload_threads=2",
    "--max_num_load_retries=5",
    "--load_retry_interval_micros=60000000",
    "--file_system_poll_wait_seconds=1",
    "--flush_filesystem_caches=true",
    "--tensorflow_session_parallelism=0",
    "--tensorflow_intra_op_parallelism=0",
    "--tensorflow_inter_op_parallelism=0",
    "--tensorflow_session_config_file=",
    "--per_process_gpu_memory_fraction=0",
    "--saved_model_tags=serve",
    "--use_alts_credentials=false",
    "--ssl_config_file=",
    "--platform_config_file=",
    "--grpc_channel_arguments=",
    "--grpc_socket_path=",
    "--grpc_max_threads=8",
    "--batching_parameters_file=",
    "--enable_model_warmup=true",
    "--num_request_iterations_for_warmup=0",
    "--monitoring_config_file=",
    "--remove_unused_fields_from_bundle_metagraph=true",
    "--prefer_tflite_model=false",
    "--num_tflite_pools=2",
    "--num_tflite_interpreters_per_pool=1",
    "--enable_signature_method_name_check=false",
    "--xla_cpu_compilation_enabled=false",
    "--xla_gpu_compilation_enabled=false",
    "--enable_profiler=true",
    "--thread_pool_factory_config_file=",
    "--mixed_precision=",
    "--skip_initialize_tpu=false",
    "--enable_grpc_healthcheck_service=true",
    "--enable_serialization_as_tensor_content=false",
    "--version=false",
]


@pytest.mark.parametrize("program", ["salver serve", "tensorflow_model_server"])
def test_13_01_every_flag_is_taken(serve, drop_in, model, program):
    command = drop_in if program != "salver serve" else None
    flags = [flag for flag in FLAGS if command or not flag.startswith("--version")]
    server = serve("--model_name=m", f"--model_base_path={model}", *flags, command=command)
    assert "unknown argument" not in server.log()
    check_predictions(server.rest_predict("m", {"instances": [2.0]}), [3.0])


@pytest.mark.parametrize(("flag", "on"), [("", True), ("=true", True), ("=false", False)])
def test_13_01_forms_of_a_switch(serve, drop_in, model, flag, on):
    flag = f"--rest_api_enable_cors_support{flag}"
    server = serve("--model_name=m", f"--model_base_path={model}", flag, command=drop_in)
    assert ("Access-Control-Allow-Origin" in server.get("/v1/models/m").headers) == on


def test_13_01_an_unknown_flag_warns_and_the_server_starts(serve, drop_in, model):
    server = serve("--model_name=m", f"--model_base_path={model}", "--no_such_flag=1", command=drop_in)
    assert "unknown argument: --no_such_flag=1" in server.log()
    check_predictions(server.rest_predict("m", {"instances": [2.0]}), [3.0])


@pytest.mark.parametrize("flag", ["--port=x", "--enable_batching=1", "--rest_api_port=eight"])
def test_13_01_a_bad_value_ends_with_255(drop_in, flag):
    done = subprocess.run([*drop_in, flag], capture_output=True, text=True, timeout=30)
    assert done.returncode == 255
    assert "--model_base_path" in done.stdout, "the usage is on standard output"


def test_13_01_version_and_help(drop_in):
    version = subprocess.run([*drop_in, "--version"], capture_output=True, text=True, timeout=30)
    assert version.returncode == 0
    lines = version.stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == ["TensorFlow ModelServer", "TensorFlow Library"]
    usage = subprocess.run([*drop_in, "--help"], capture_output=True, text=True, timeout=30)
    assert usage.returncode == 255 and "--model_base_path" in usage.stdout


def test_13_01_no_model_is_a_start_failure(drop_in):
    done = subprocess.run([*drop_in, "--port=0"], capture_output=True, text=True, timeout=30)
    assert done.returncode == 255
    assert done.stdout.startswith("Failed to start server. Error: "), done.stdout + done.stderr


def test_13_01_log_lines_that_scripts_look_for(serve, drop_in, model):
    server = serve("--model_name=m", f"--model_base_path={model}", command=drop_in)
    wait_for(lambda: "Exporting HTTP/REST API at:" in server.log(), "the REST line")
    assert f"Running gRPC ModelServer at 0.0.0.0:{server.port}" in server.log()
    assert f"Exporting HTTP/REST API at:localhost:{server.rest_port}" in server.log()


def test_13_02_two_variables_are_enough(serve, model):
    server = serve(env={"MODEL_NAME": "m", "MODEL_BASE_PATH": str(model.parent)})
    check_predictions(server.rest_predict("m", {"instances": [2.0]}), [3.0])
