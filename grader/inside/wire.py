"""Values on the wire between the trusted process and the student's: a plain grammar, nothing that runs.

A message is ``>II`` (length of the text, number of buffers), the text (JSON), each buffer behind its ``>Q`` length.
Numbers, texts, True, False and None are JSON's own; everything else is a list that begins with its kind:

    ["l", items]  list     ["t", items]  tuple    ["s", items] set      ["f", items] frozenset
    ["d", [[key, value], …]] dict        ["N", the same] SimpleNamespace
    ["b", n]      bytes, in buffer n     ["c", real, imaginary] complex
    ["F", numerator, denominator] Fraction        ["D", text] Decimal
    ["A", dtype, shape, n] NumPy array   ["n", dtype, n] NumPy scalar
    ["T", dtype, shape, n, memory] torch tensor   ["G", n] torch.Generator, by its state
    ["O", number, type] an object that stays with the sender; ["o", number] one that stays with the receiver

Neither side sends code or pickles. This file is used on both sides; only what it decodes on the trusted side counts.
"""

from __future__ import annotations

import json
import math
import socket
import struct
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

LIMIT = 32 * 2**20  # bytes of one message
NODES = 400_000  # values in one message
DEPTH = 40
HASHED, HASHED_AT_ONCE = (
    20_000,
    5_000,
)  # keys in one message, and in one dict or set: equal hashes cost squares
MADE = 100_000  # tensors, arrays, fractions and stand-ins in one message
DIGITS = 400  # of a Decimal, and of its exponent: ``int`` of 1E+300000000 never ends
_HEAD, _LENGTH = struct.Struct(">II"), struct.Struct(">Q")
_NUMPY = frozenset(
    [
        "bool",
        "int8",
        "int16",
        "int32",
        "int64",
        "uint8",
        "uint16",
        "uint32",
        "uint64",
        "float16",
        "float32",
        "float64",
    ]
)
_TORCH = frozenset(
    ["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64"]
)

Keep = Callable[[Any], int]  # an object that stays here -> its number
Find = Callable[[int], Any]  # the number of an object that stays here -> the object
Stand = Callable[[int, str], Any]  # the number and type of an object over there -> what stands for it here


class WireError(Exception):
    """What came is not of this grammar, or too much; half a sentence."""


class Closed(WireError):
    """The other side is gone."""


class Late(WireError):
    """Nothing (or not everything) came in time."""


class Away:
    """An object of the other side, by its number; ``Encoder`` sends it home as that number."""

    def __init__(self, number: int):
        self._number = number


class Encoder:
    """Python values to the grammar; ``buffers`` collects what is not text."""

    def __init__(self, keep: Keep):
        self.keep = keep
        self.buffers: list[bytes] = []

    def __call__(self, value: Any, depth: int = 0) -> Any:
        if value is None or type(value) in (bool, int, float, str):
            return value
        if depth > DEPTH:
            raise WireError(f"values nested more than {DEPTH} deep")
        special = self._numeric(value) or self._torch(value)
        if special is not None:
            return special
        if isinstance(value, Away):
            return ["o", value._number]
        for kind, tag in ((list, "l"), (tuple, "t"), (set, "s"), (frozenset, "f")):
            if isinstance(value, kind):
                return [tag, [self(item, depth + 1) for item in value]]
        if isinstance(value, dict):
            return ["d", self._pairs(value, depth)]
        if type(value) is SimpleNamespace:
            return ["N", self._pairs(vars(value), depth)]
        if isinstance(value, (bytes, bytearray)):
            return ["b", self._buffer(bytes(value))]
        for plain in (bool, int, float, str):  # subclasses, such as the members of an IntEnum
            if isinstance(value, plain):
                return plain(value)
        return ["O", self.keep(value), type(value).__name__[:80]]

    def _pairs(self, value: Mapping[Any, Any], depth: int) -> list[Any]:
        return [[self(k, depth + 1), self(v, depth + 1)] for k, v in value.items()]

    def _buffer(self, data: bytes) -> int:
        self.buffers.append(data)
        return len(self.buffers) - 1

    def _numeric(self, value: Any) -> list[Any] | None:
        if isinstance(value, complex):
            return ["c", value.real, value.imag]
        if isinstance(value, Fraction):
            return ["F", value.numerator, value.denominator]
        if isinstance(value, Decimal):
            return ["D", str(value)]
        numpy = sys.modules.get("numpy")
        if numpy is None or not isinstance(value, (numpy.ndarray, numpy.generic)):
            return None
        if value.dtype.name not in _NUMPY:
            return None
        data = self._buffer(numpy.asarray(value).tobytes())
        if isinstance(value, numpy.generic):
            return ["n", value.dtype.name, data]
        return ["A", value.dtype.name, list(value.shape), data]

    def _torch(self, value: Any) -> list[Any] | None:
        torch = sys.modules.get("torch")
        if torch is None:
            return None
        if isinstance(value, torch.Generator):
            return ["G", self._buffer(value.get_state().numpy().tobytes())]
        if not isinstance(value, torch.Tensor):
            return None
        dtype = str(value.dtype).removeprefix("torch.")
        if dtype not in _TORCH or value.layout != torch.strided:
            return None
        memory = value.untyped_storage().data_ptr()
        flat = value.detach().cpu().contiguous().reshape(-1)
        data = flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
        return ["T", dtype, list(value.shape), self._buffer(data), memory]


class Decoder:
    """The grammar to Python values of exactly the built-in types. Raises WireError for anything else."""

    def __init__(self, buffers: Sequence[bytes], find: Find, stand: Stand):
        self.buffers, self.find, self.stand = buffers, find, stand
        self.nodes = self.hashed = self.made = 0

    def __call__(self, node: Any, depth: int = 0) -> Any:
        self.nodes += 1
        if self.nodes > NODES or depth > DEPTH:
            raise WireError(f"more than {NODES:,} values, or nested more than {DEPTH} deep")
        if node is None or isinstance(node, (bool, int, float, str)):
            return node
        if not isinstance(node, list) or not node or not isinstance(node[0], str):
            raise WireError("a value of no known kind")
        try:
            return self._tagged(node[0], node[1:], depth)
        except (ValueError, TypeError, LookupError, ArithmeticError, MemoryError, RuntimeError) as error:
            raise WireError(f"a damaged value ({type(error).__name__})") from None

    def _tagged(self, tag: str, rest: list[Any], depth: int) -> Any:
        self.made += tag not in "ltsfdNb"
        if self.made > MADE:
            raise WireError(f"more than {MADE:,} tensors, fractions and objects")
        if tag in "ltsf":
            (items,) = rest
            self._hash(len(_list(items)) if tag in "sf" else 0)
            made = [self(item, depth + 1) for item in _list(items)]
            return {"l": list, "t": tuple, "s": set, "f": frozenset}[tag](made)
        if tag in "dN":
            (pairs,) = rest
            self._hash(len(_list(pairs)))
            found = {self(k, depth + 1): self(v, depth + 1) for k, v in _list(pairs)}
            return found if tag == "d" else SimpleNamespace(**found)
        if tag == "b":
            return self._buffer(*rest)
        if tag == "c":
            return complex(float(rest[0]), float(rest[1]))
        if tag == "F":
            return Fraction(_int(rest[0]), _int(rest[1]))
        if tag == "D":
            number = Decimal(rest[0][:DIGITS])
            if number.is_finite() and abs(number.adjusted()) > DIGITS:
                raise WireError("a number beyond all bounds")
            return number
        if tag in "An":
            return self._numpy(tag, *rest)
        if tag == "T":
            return self._tensor(*rest)
        if tag == "G":
            return self._generator(*rest)
        if tag == "o":
            return self.find(_int(rest[0]))
        if tag == "O":
            return self.stand(_int(rest[0]), _name(rest[1]))
        raise WireError("a value of no known kind")

    def _hash(self, count: int) -> None:
        self.hashed += count
        if count > HASHED_AT_ONCE or self.hashed > HASHED:
            raise WireError("too many keys")

    def _buffer(self, number: Any) -> bytes:
        if not 0 <= _int(number) < len(self.buffers):
            raise WireError("a buffer that did not come")
        return self.buffers[number]

    def _numpy(self, tag: str, dtype: str, *rest: Any) -> Any:
        import numpy

        if dtype not in _NUMPY:
            raise WireError("an array of no known dtype")
        flat = numpy.frombuffer(self._buffer(rest[-1]), dtype=dtype).copy()
        return flat.reshape(_shape(rest[0])) if tag == "A" else flat.reshape(())[()]

    def _tensor(self, dtype: str, shape: Any, number: Any, memory: Any) -> Any:
        import torch

        if dtype not in _TORCH:
            raise WireError("a tensor of no known dtype")
        data = bytearray(self._buffer(number))
        kind = getattr(torch, dtype)
        flat = torch.frombuffer(data, dtype=torch.uint8).view(kind) if data else torch.empty(0, dtype=kind)
        if kind is torch.bool:
            flat = torch.frombuffer(data, dtype=torch.uint8) != 0 if data else flat
        tensor: Any = flat.reshape(_shape(shape))
        tensor.memory = _int(memory)  # where it lies over there: two that share it were not copied
        return tensor

    def _generator(self, number: Any) -> Any:
        import torch

        generator = torch.Generator()
        generator.set_state(torch.frombuffer(bytearray(self._buffer(number)), dtype=torch.uint8))
        return generator


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise WireError("a damaged list")
    return value


def _int(value: Any) -> int:
    if type(value) is not int:
        raise WireError("a damaged number")
    return value


def _name(value: Any) -> str:
    return value if isinstance(value, str) and value.isidentifier() and len(value) <= 80 else "object"


def _shape(value: Any) -> list[int]:
    """Sizes of a table. As lists it would have a list for each row, and for each row's row: empty ones cost as well."""
    sizes = [_int(size) for size in _list(value)]
    lists = sum(math.prod(max(1, size) for size in sizes[:n]) for n in range(1, len(sizes)))
    if len(sizes) > 16 or any(size < 0 or size > 2**40 for size in sizes) or lists > NODES:
        raise WireError("a damaged shape")
    return sizes


class Line:
    """Messages over a connected socket, one at a time, never larger than LIMIT."""

    def __init__(self, connection: socket.socket):
        self.connection = connection
        self._came = bytearray()  # what has come and is not yet read: half a message waits here

    def send(
        self, message: dict[str, Any], buffers: Sequence[bytes] = (), deadline: float | None = None
    ) -> None:
        """Raises WireError where it is too large, Closed where nobody is there, Late where nobody reads."""
        text = json.dumps(message).encode()
        parts = [_HEAD.pack(len(text), len(buffers)), text]
        for data in buffers:
            parts += [_LENGTH.pack(len(data)), data]
        if (size := sum(map(len, parts))) > LIMIT:
            raise WireError(f"{size:,} bytes are more than the {LIMIT:,} that one message may have")
        self._wait(deadline)
        try:
            self.connection.sendall(b"".join(parts))
        except TimeoutError:
            raise Late("nobody read it in time") from None
        except OSError:
            raise Closed("nobody is there") from None

    def receive(self, deadline: float | None = None) -> tuple[dict[str, Any], list[bytes]]:
        """The next message and its buffers. deadline: of time.monotonic. Raises Late, Closed or WireError."""
        length, count = _HEAD.unpack(self._come(0, _HEAD.size, deadline))
        if length > LIMIT or count > 100_000:
            raise WireError("a message that is too large")
        at = _HEAD.size + length
        text = self._come(_HEAD.size, at, deadline)
        buffers = []
        for _ in range(count):
            (size,) = _LENGTH.unpack(self._come(at, at + _LENGTH.size, deadline))
            at += _LENGTH.size + size
            if at > LIMIT:
                raise WireError("a message that is too large")
            buffers.append(self._come(at - size, at, deadline))
        del self._came[:at]
        try:
            message = json.loads(text)
        except (ValueError, RecursionError):
            raise WireError("no JSON") from None
        if not isinstance(message, dict):
            raise WireError("a message of no known kind")
        return message, buffers

    def close(self) -> None:
        self.connection.close()

    def _come(self, start: int, end: int, deadline: float | None) -> bytes:
        """These bytes of the next message, as soon as they have come."""
        while len(self._came) < end:
            self._wait(deadline)
            try:
                more = self.connection.recv(max(2**16, min(end - len(self._came), 2**20)))
            except TimeoutError:
                raise Late("it did not come in time") from None
            except OSError:
                raise Closed("nobody is there") from None
            if not more:
                raise Closed("nobody is there")
            self._came += more
        return bytes(self._came[start:end])

    def _wait(self, deadline: float | None) -> None:
        if deadline is None:
            self.connection.settimeout(None)
        elif (left := deadline - time.monotonic()) > 0:
            self.connection.settimeout(left)
        else:
            raise Late("the time is over")
