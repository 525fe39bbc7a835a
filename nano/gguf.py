"""GGUF, as much of it as Nano needs: reading and writing F32, F16, Q8_0, MXFP4 and I32 tensors."""

import struct

import numpy as np

F32, F16, Q8_0, I32, BF16, MXFP4 = 0, 1, 8, 26, 30, 39
BLOCK = {F32: (1, 4), F16: (1, 2), Q8_0: (32, 34), I32: (1, 4), BF16: (1, 2), MXFP4: (32, 17)}
E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32)
ALIGNMENT = 32
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


def decode(kind, raw, shape):
    if kind == F32:
        return np.frombuffer(raw, np.float32).reshape(shape)
    if kind == F16:
        return np.frombuffer(raw, np.float16).astype(np.float32).reshape(shape)
    if kind == BF16:
        return (np.frombuffer(raw, np.uint16).astype(np.uint32) << 16).view(np.float32).reshape(shape)
    if kind == I32:
        return np.frombuffer(raw, np.int32).reshape(shape)
    blocks = np.frombuffer(raw, np.uint8).reshape(-1, BLOCK[kind][1])
    if kind == Q8_0:
        scale = blocks[:, :2].copy().view(np.float16).astype(np.float32)
        return (scale * blocks[:, 2:].copy().view(np.int8)).reshape(shape)
    scale = np.ldexp(np.float32(1), blocks[:, :1].astype(np.int32) - 127)
    codes = np.concatenate((blocks[:, 1:] & 15, blocks[:, 1:] >> 4), 1)
    values = E2M1[codes & 7] * np.where(codes & 8, -1, 1).astype(np.float32)
    return (scale * values).astype(np.float32).reshape(shape)


def encode(kind, x):
    x = np.ascontiguousarray(x)
    if kind == I32:
        return x.astype(np.int32).tobytes()
    x = x.astype(np.float32)
    if kind == F32:
        return x.tobytes()
    if kind == F16:
        return x.astype(np.float16).tobytes()
    rows = x.reshape(-1, 32)
    if kind == Q8_0:
        scale = np.abs(rows).max(1, keepdims=True) / 127
        inverse = np.divide(1, scale, out=np.zeros_like(scale), where=scale > 0)
        q = np.clip(np.rint(rows * inverse), -127, 127).astype(np.int8)
        return np.concatenate((scale.astype(np.float16).view(np.uint8), q.view(np.uint8)), 1).tobytes()
    assert kind == MXFP4
    exponent, magnitude, sign = e8m0_codes(rows)
    codes = (magnitude | (sign << 3)).astype(np.uint8)
    packed = codes[:, :16] | (codes[:, 16:] << 4)
    return np.concatenate((exponent.astype(np.uint8), packed), 1).tobytes()


def e8m0_codes(rows):
    """Scale byte, magnitude code and sign of rows of 32: the rounding that training used."""
    amax = np.maximum(np.abs(rows).max(1, keepdims=True), np.float32(6 * 2.0**-126)) / np.float32(6)
    bits = amax.astype(np.float32).view(np.int32)
    exponent = (bits >> 23) + ((bits & 0x7FFFFF) != 0)
    a = np.abs(rows) / np.ldexp(np.float32(1), exponent - 127)
    step = np.where(a < 2, 0.5, np.where(a < 4, 1, 2)).astype(np.float32)
    nearest = np.minimum(np.rint(a / step) * step, 6)
    magnitude = np.searchsorted(E2M1, nearest)
    return exponent, magnitude, (np.signbit(rows) & (magnitude > 0)).astype(np.int64)


class Reader:
    def __init__(self, path):
        self.data = open(path, "rb").read()
        self.at = 4
        assert self.data[:4] == b"GGUF"
        version, tensors, keys = self.take("IQQ")
        assert version in (2, 3)
        self.meta = {}
        for _ in range(keys):
            key = self.string()
            self.meta[key] = self.value(self.take("I")[0])
        infos = []
        for _ in range(tensors):
            name = self.string()
            dims = self.take(f"{self.take('I')[0]}Q")
            infos.append((name, dims, *self.take("IQ")))
        align = self.meta.get("general.alignment", ALIGNMENT)
        start = -(-self.at // align) * align
        self.tensors = {}
        for name, dims, kind, offset in infos:
            elements, size = BLOCK.get(kind, (1, 0))
            count = int(np.prod(dims)) // elements * size
            self.tensors[name] = (kind, tuple(reversed(dims)), start + offset, count)

    def take(self, format):
        size = struct.calcsize("<" + format)
        out = struct.unpack_from("<" + format, self.data, self.at)
        self.at += size
        return out

    def string(self):
        (n,) = self.take("Q")
        self.at += n
        return self.data[self.at - n : self.at].decode()

    def value(self, kind):
        if kind == 8:
            return self.string()
        if kind == 9:
            inner, count = self.take("IQ")
            return [self.value(inner) for _ in range(count)]
        return self.take(SCALARS[kind])[0]

    def tensor(self, name):
        kind, shape, at, count = self.tensors[name]
        return decode(kind, self.data[at : at + count], shape)



def pack_value(v):
    def string(s):
        raw = s.encode()
        return struct.pack("<Q", len(raw)) + raw

    if isinstance(v, bool):
        return struct.pack("<I?", 7, v)
    if isinstance(v, int):
        return struct.pack("<II", 4, v)
    if isinstance(v, float):
        return struct.pack("<If", 6, v)
    if isinstance(v, str):
        return struct.pack("<I", 8) + string(v)
    first = v[0]
    if isinstance(first, str):
        return struct.pack("<IIQ", 9, 8, len(v)) + b"".join(map(string, v))
    kind, code = (6, "f") if isinstance(first, float) else (5, "i")
    return struct.pack("<IIQ", 9, kind, len(v)) + struct.pack(f"<{len(v)}{code}", *v)


def write(path, meta, tensors):
    """tensors: name -> (kind, array in row-major shape)."""
    head = [struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(meta))]
    for key, value in meta.items():
        head.append(struct.pack("<Q", len(key.encode())) + key.encode() + pack_value(value))
    bodies, offset = [], 0
    for name, (kind, array) in tensors.items():
        raw = encode(kind, array)
        dims = tuple(reversed(array.shape))
        head.append(struct.pack("<Q", len(name.encode())) + name.encode())
        head.append(struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset))
        bodies.append(raw + bytes(-len(raw) % ALIGNMENT))
        offset += len(bodies[-1])
    start = b"".join(head)
    with open(path, "wb") as f:
        f.write(start + bytes(-len(start) % ALIGNMENT))
        for body in bodies:
            f.write(body)
