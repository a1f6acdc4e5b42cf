"""Conformance 10 and 11: the JSON dialect, and how numbers are written."""

import json
import math
import re

import pytest

from server import check_error, check_predictions

REFUSED = {
    "empty_body": ("half_plus_two", "", ["JSON Parse error: The document is empty"]),
    "truncated": ("half_plus_two", '{"instances": [1.0', ["JSON Parse error:", "at offset:"]),
    "comment": ("half_plus_two", '{"instances": [1.0]/* */}', ["JSON Parse error:"]),
    "trailing_comma": ("half_plus_two", '{"instances": [1.0,]}', ["JSON Parse error:"]),
    "not_an_object": ("half_plus_two", "[1.0]", ["JSON Value:", "Is not object"]),
    "signature_no_string": ("half_plus_two", '{"signature_name": 1, "instances": [1.0]}', ["signature_name"]),
    "signature_unknown": (
        "half_plus_two",
        '{"signature_name": "nope", "instances": [1.0]}',
        ['Serving signature key "nope" not found.'],
    ),
    "both_keys": (
        "half_plus_two",
        '{"instances": [1.0], "inputs": [1.0]}',
        ["Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist"],
    ),
    "no_key": ("half_plus_two", "{}", ["Missing 'inputs' or 'instances' key"]),
    "instances_no_list": ("half_plus_two", '{"instances": 1.0}', ["Expecting 'instances' to be an list/array"]),
    "instances_empty": ("half_plus_two", '{"instances": []}', ["No values in 'instances' array"]),
    "plain_for_two_inputs": (
        "add",
        '{"instances": [1.0]}',
        ["instances is a plain list, but expecting list of objects as multiple input tensors required"],
    ),
    "object_then_value": (
        "half_plus_two",
        '{"instances": [{"x": 1.0}, 2.0]}',
        ["Expecting object but got list at item 1 of input list"],
    ),
    "value_then_object": (
        "half_plus_two",
        '{"instances": [1.0, {"x": 2.0}]}',
        ["Expecting value/list but got object at item 1 of input list"],
    ),
    "missing_key": ("add", '{"instances": [{"a": 1.0}]}', ["keys must be equal to: a,b"]),
    "unknown_key": ("add", '{"instances": [{"a": 1.0, "c": 1.0}]}', ["JSON object: does not have named input: c"]),
    "ragged_size": (
        "half_plus_two_any",
        '{"instances": [[1.0, 2.0], [3.0]]}',
        ["Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: ", "Expecting tensor size: 2 but got: 1"],
    ),
    "ragged_shape": (
        "half_plus_two_any",
        '{"instances": [[[1.0, 2.0]], [[1.0], [2.0]]]}',
        ["Failed to process element: 1 of 'instances' list.", "Expecting shape [1,2] but got: [2,1]"],
    ),
    "ragged_in_named": (
        "half_plus_two_any",
        '{"instances": [{"x": [1.0, 2.0]}, {"x": [3.0]}]}',
        ["Failed to process element: 1 key: x of 'instances' list."],
    ),
    "columns_plain_for_two_inputs": (
        "add",
        '{"inputs": [1.0]}',
        ["inputs is a plain value/list, but expecting an object as multiple input tensors required as per tensorinfo_map"],
    ),
    "columns_missing": ("add", '{"inputs": {"a": [1.0]}}', ["Missing named input: b in 'inputs' object."]),
    "columns_ragged": ("half_plus_two_any", '{"inputs": [[1.0, 2.0], [3.0]]}', ["Encountered list at unexpected size: 1 at level: 1 expected size: 2"]),
    "columns_too_deep": ("half_plus_two_any", '{"inputs": [1.0, [2.0]]}', ["Encountered list at unexpected level:"]),
    "columns_too_flat": ("half_plus_two_any", '{"inputs": [[1.0], 2.0]}', ["found at incorrect level:"]),
    "string_as_float": ("half_plus_two", '{"instances": ["1"]}', ["JSON Value:", "Type: String is not of expected type: float"]),
    "true_as_float": ("half_plus_two", '{"instances": [true]}', ["Type: True is not of expected type: float"]),
    "false_as_float": ("half_plus_two", '{"instances": [false]}', ["Type: False is not of expected type: float"]),
    "null_as_float": ("half_plus_two", '{"instances": [null]}', ["Type: Null is not of expected type: float"]),
    "b64_as_float": ("half_plus_two", '{"instances": [{"b64": "AAAA"}]}', ["Type: Object is not of expected type: float"]),
    "float_as_int32": ("identity_int32", '{"instances": [1.0]}', ["Type: Number is not of expected type: int32"]),
    "float_as_int64": ("identity_int64", '{"instances": [1.5]}', ["Type: Number is not of expected type: int64"]),
    "exponent_as_int32": ("identity_int32", '{"instances": [1e2]}', ["Type: Number is not of expected type: int32"]),
    "beyond_int32": ("identity_int32", '{"instances": [2147483648]}', ["is not of expected type: int32"]),
    "beyond_int64": ("identity_int64", '{"instances": [9223372036854775808]}', ["is not of expected type: int64"]),
    "beyond_double": ("half_plus_two", '{"instances": [1e400]}', ["JSON Parse error: Number too big to be stored in double."]),
    "number_as_bool": ("identity_bool", '{"instances": [1]}', ["Type: Number is not of expected type: bool"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_13_10_refused(shared, case):
    model, body, texts = REFUSED[case]
    check_error(shared.rest_predict(model, body), 400, *texts)


ACCEPTED = {
    "integer_as_float": ("half_plus_two", '{"instances": [1, 2]}', [2.5, 3.0]),
    "exponent_as_float": ("half_plus_two", '{"instances": [1e1, 2E-1]}', [7.0, 2.1]),
    "trailing_bytes": ("half_plus_two", '{"instances": [2.0]} and more', [3.0]),
    "unknown_keys": ("half_plus_two", '{"other": [[{}]], "instances": [2.0], "more": null}', [3.0]),
    "first_of_two_keys": ("half_plus_two", '{"instances": [2.0], "instances": [4.0]}', [3.0]),
    "empty_signature": ("half_plus_two", '{"signature_name": "", "instances": [2.0]}', [3.0]),
    "signature_after_data": ("half_plus_two", '{"instances": [2.0], "signature_name": "serving_default"}', [3.0]),
    "white_space": ("half_plus_two", ' \r\n\t{ "instances" : [ 2.0 , 4.0 ] }\n', [3.0, 4.0]),
    "escaped_key": ("half_plus_two", '{"\\u0069nstances": [2.0]}', [3.0]),
    "bool": ("identity_bool", '{"instances": [true, false]}', [True, False]),
    "int64": ("identity_int64", '{"instances": [-1, 2147483647]}', [-1, 2147483647]),
    "int8": ("identity_int8", '{"instances": [-128, 127]}', [-128, 127]),
    "half": ("identity_half", '{"instances": [0.5, -2]}', [0.5, -2.0]),
    "rows_of_lists": ("grid", '{"instances": [[1, 2, 3], [4, 5, 6]]}', [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]),
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_13_10_accepted(shared, case):
    model, body, predictions = ACCEPTED[case]
    answer = shared.rest_predict(model, body)
    assert answer.status_code == 200, answer.text
    found = answer.json()["predictions"]
    assert found == predictions or found == pytest.approx(predictions)


@pytest.mark.parametrize(
    ("word", "written"),
    [("NaN", "NaN"), ("-NaN", "NaN"), ("Infinity", "Infinity"), ("-Infinity", "-Infinity"), ("Inf", "Infinity"), ("-Inf", "-Infinity")],
)
def test_13_10_words_for_numbers(shared, word, written):
    answer = shared.rest_predict("identity_float", f'{{"instances": [{word}]}}')
    assert answer.status_code == 200, answer.text
    assert tokens(answer) == [written]


def test_13_10_a_column_too_many_is_passed_over(shared):
    body = '{"inputs": {"a": [1.0], "b": [2.0], "c": "anything"}}'
    assert shared.rest_predict("add", body).json() == {"outputs": {"sum": [3.0], "product": [2.0]}}


def test_13_10_the_wrong_shape_is_a_clear_error(shared):
    check_error(shared.rest_predict("grid", '{"instances": [[1.0, 2.0]]}'), 400, "x")
    check_error(shared.rest_predict("fixed", '{"inputs": [[1.0, 2.0]]}'), 400, "x")


# 11


def tokens(answer):
    """The values as they are written, not as a JSON reader takes them."""
    inside = re.search(r'"(?:predictions|outputs)"\s*:\s*\[(.*)\]', answer.text, re.S)
    return [token.strip() for token in inside[1].split(",")]


NUMBERS = {
    "0.2": "0.2",
    "2.5": "2.5",
    "3": "3.0",
    "1e-5": "1e-05",
    "3e-5": "3e-05",
    "0.0001": "0.0001",
    "999999": "999999.0",
    "9e6": "9e+06",
    "16777217": "16777216.0",
    "-0.0": "-0.0",
    "1e39": "Infinity",
    "-1e39": "-Infinity",
    "NaN": "NaN",
    "0.1": "0.1",
    "3.4028234663852886e38": "3.40282347e+38",
    "0.333333343": "0.333333343",
    "123456.789": "123456.789",
    "1234567": "1234567.0",
    "1e-45": "1.4013e-45",
    "1.17549435e-38": "1.17549435e-38",
}


@pytest.mark.parametrize("given", NUMBERS)
def test_13_11_floats(shared, given):
    answer = shared.rest_predict("identity_float", f'{{"instances": [{given}]}}')
    assert answer.status_code == 200, answer.text
    assert tokens(answer) == [NUMBERS[given]]


def test_13_11_floats_come_back_exactly(shared):
    import numpy as np

    bits = np.random.default_rng(3).integers(0, 2**32, 2000, dtype=np.uint32)
    values = bits.view(np.float32)
    values = values[np.isfinite(values)]
    answer = shared.rest_predict("identity_float", {"instances": values.astype(float).tolist()})
    found = np.array(answer.json()["predictions"], np.float32)
    np.testing.assert_array_equal(found.view(np.uint32), values.view(np.uint32))


def test_13_11_integers_and_bools(shared):
    for dtype, given in (("int32", [0, -7, 2147483647]), ("uint8", [0, 255])):
        assert tokens(shared.rest_predict(f"identity_{dtype}", {"instances": given})) == [str(n) for n in given]
    assert tokens(shared.rest_predict("identity_bool", {"instances": [True, False]})) == ["true", "false"]


def test_13_11_the_same_for_columns(shared):
    answer = shared.rest_predict("identity_float", '{"inputs": [0.2, 9e6, -0.0]}')
    assert tokens(answer) == ["0.2", "9e+06", "-0.0"]
    assert all(math.isfinite(v) for v in json.loads(answer.text)["outputs"])
