"""The xxh3-64 of short texts, as its specification has it, and the seeded choices made by it."""

from __future__ import annotations

import struct

_MASK = (1 << 64) - 1
_PRIME = 0x9E3779B185EBCA87
_SECRET = bytes.fromhex(
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671f"
    "cb79e64eccc0e578825ad07dccff7221b8084674f743248ee03590e6813a264c"
    "3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8"
    "a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364"
    "eac5ac8334d3ebc3c581a0fffa1363eb170ddd51b7f0da49d316552629d4689e"
    "2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e"
)


def _word(data: bytes, at: int) -> int:
    word: int = struct.unpack_from("<Q", data, at)[0]
    return word


def _folded(left: int, right: int) -> int:
    product = left * right
    return (product & _MASK) ^ (product >> 64)


def _avalanche(word: int) -> int:
    word ^= word >> 37
    word = word * 0x165667919E3779F9 & _MASK
    return word ^ (word >> 32)


def _mixed(data: bytes, at: int, secret: int) -> int:
    return _folded(
        _word(data, at) ^ _word(_SECRET, secret), _word(data, at + 8) ^ _word(_SECRET, secret + 8)
    )


def xxh3_64(data: bytes) -> int:
    """The xxh3-64 of 9 to 128 bytes."""
    length = len(data)
    if not 9 <= length <= 128:
        raise ValueError(f"{length} bytes")
    if length <= 16:
        low = _word(data, 0) ^ _word(_SECRET, 24) ^ _word(_SECRET, 32)
        high = _word(data, length - 8) ^ _word(_SECRET, 40) ^ _word(_SECRET, 48)
        swapped = int.from_bytes(low.to_bytes(8, "little"), "big")
        return _avalanche((length + swapped + high + _folded(low, high)) & _MASK)
    total = length * _PRIME
    for pair in range((length - 1) // 32 + 1):
        total += _mixed(data, 16 * pair, 32 * pair)
        total += _mixed(data, length - 16 * (pair + 1), 32 * pair + 16)
    return _avalanche(total & _MASK)


def choice(seed: int, purpose: str, name: str, record: int, copy: int = 0) -> int:
    """A seeded choice about a record of a source."""
    texts = b"".join(text.encode() + b"\xff" for text in (purpose, name))
    numbers = (struct.pack("<Q", seed), struct.pack("<QI", record, copy))
    return xxh3_64(numbers[0] + texts + numbers[1])
