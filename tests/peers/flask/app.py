"""A SavedModel behind Flask, as one writes it first: JSON in, one run of TensorFlow, JSON out.

`MODEL` names the SavedModel's folder and `PORT` the port. `python app.py` is one process; `gunicorn app:app` is several.
"""

import os

import numpy as np
import tensorflow as tf
from flask import Flask, jsonify, request

model = tf.saved_model.load(os.environ["MODEL"])
signature = model.signatures["serving_default"]
input_name = next(iter(signature.structured_input_signature[1]))
app = Flask(__name__)


@app.post("/v1/models/<name>:predict")
def predict(name):
    instances = np.array(request.get_json()["instances"], dtype=np.float32)
    outputs = signature(**{input_name: tf.constant(instances)})
    return jsonify(predictions=next(iter(outputs.values())).numpy().tolist())


@app.get("/process")
def process():
    """Which process answers: tells when each worker has loaded its model."""
    return str(os.getpid())


if __name__ == "__main__":
    app.run(host="127.0.0.1", port=int(os.environ["PORT"]))
