"""Modules that are imported when they are first used, so that the list of cases costs no import of TensorFlow."""

import importlib


class Late:
    def __init__(self, name):
        self._name = name

    def __getattr__(self, attribute):
        return getattr(importlib.import_module(self._name), attribute)


tf = Late("tensorflow")
v1 = Late("tensorflow.compat.v1")
np = Late("numpy")
keras = Late("keras")
L = Late("keras.layers")
ops = Late("keras.ops")
keras2 = Late("tf_keras")
L2 = Late("tf_keras.layers")
