"""Writes numbers.txt: numbers and how TensorFlow Serving prints them.

Each line is the type, the bits in hexadecimal and the text: 6 significant digits if they give the same number back,
else 9 (float) or 17 (double), by C's %g, and ".0" where there is neither a point nor an exponent.

    python3 numbers.py > numbers.txt
"""

import random
import struct


def single(bits):
    return struct.unpack("<f", struct.pack("<I", bits))[0]


def double(bits):
    return struct.unpack("<d", struct.pack("<Q", bits))[0]


def bits_of(form, code, value):
    return struct.unpack(code, struct.pack(form, value))[0]


def text(value, long, narrow):
    short = "%.6g" % value
    shown = short if narrow(float(short)) == value else f"%.{long}g" % value
    return shown if "." in shown or "e" in shown else shown + ".0"


def to_single(value):
    try:
        return struct.unpack("<f", struct.pack("<f", value))[0]
    except OverflowError:
        return None


random.seed(7)
written = [0.0, -0.0, 0.2, 1e-5, 3e-5, 9e6, 999999.0, 1e6, 1000001.0, 16777217.0, 0.0001, 0.00001, 123456.5, 1 / 3, 2.5]
written += [10.0**n for n in range(-40, 39)] + [float(n) for n in (1, 2, 10, 99, 100, 12345, 123456, 1234567)]
written += [round(random.random(), digits) for digits in range(1, 9) for _ in range(40)]
written += [random.random() * 10.0 ** random.randint(-30, 30) for _ in range(300)]
singles = {bits_of("<f", "<I", value) for value in written}
singles |= {random.getrandbits(32) for _ in range(1500)}
# The smallest numbers, which have few bits, and the neighbours of powers of two.
singles |= set(range(1, 200)) | {(1 << n) - 1 for n in range(1, 31)} | {(n << 23) + 1 for n in range(254)}
doubles = {bits_of("<d", "<Q", value) for value in written}
doubles |= {random.getrandbits(64) for _ in range(1500)}
doubles |= set(range(1, 100)) | {(n << 52) + 1 for n in range(0, 2046, 7)}

for bits in sorted(singles):
    value = single(bits)
    if abs(value) < float("inf"):
        print(f"f32 {bits:08x} {text(value, 9, to_single)}")
for bits in sorted(doubles):
    value = double(bits)
    if abs(value) < float("inf"):
        print(f"f64 {bits:016x} {text(value, 17, float)}")
