"""Triton's Python backend running an ONNX file on onnxruntime: a batch of requests becomes one run.

Triton gives the requests that its dynamic batcher joined; `model.onnx` lies beside this file. Each instance of the model
is a process of its own with one thread, so that instances times threads are the machine's two cores.
"""

from pathlib import Path

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        path = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.input = self.session.get_inputs()[0].name
        self.output = self.session.get_outputs()[0].name

    def execute(self, requests):
        inputs = [pb_utils.get_input_tensor_by_name(request, self.input).as_numpy() for request in requests]
        joined = inputs[0] if len(inputs) == 1 else np.concatenate(inputs)
        outputs = self.session.run([self.output], {self.input: joined})[0]
        responses = []
        start = 0
        for rows in inputs:
            part = pb_utils.Tensor(self.output, outputs[start : start + len(rows)])
            responses.append(pb_utils.InferenceResponse([part]))
            start += len(rows)
        return responses
