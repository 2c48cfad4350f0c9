"""What clients send after ClientInit: messages of every type, and the beginnings of real viewers' sessions."""

import struct
from collections.abc import Sequence
from typing import Final

from hypothesis import strategies as st

from xvpd.rfb.walker import Kind

Messages = list[tuple[Kind, bytes]]

CLIPBOARD: Final = struct.unpack(">i", bytes.fromhex("c0a1e5ce"))[0]


def encodings(*numbers: int) -> bytes:
    return struct.pack(f">BxH{len(numbers)}i", 2, len(numbers), *numbers)


def update_request(incremental: int = 1, x: int = 0, y: int = 0, width: int = 1024, height: int = 768) -> bytes:
    return struct.pack(">BBHHHH", 3, incremental, x, y, width, height)


def key(keysym: int, down: int = 1) -> bytes:
    return struct.pack(">BBxxI", 4, down, keysym)


def pointer(x: int = 0, y: int = 0, mask: int = 0) -> bytes:
    return struct.pack(">BBHH", 5, mask, x, y)


def cut_text(text: bytes) -> bytes:
    return struct.pack(">BxxxI", 6, len(text)) + text


def extended_cut_text(text: bytes) -> bytes:
    return struct.pack(">Bxxxi", 6, -len(text)) + text


def fence(payload: bytes = b"") -> bytes:
    return struct.pack(">BxxxIB", 248, 0x80000001, len(payload)) + payload


def xvp(code: int, version: int = 1) -> bytes:
    return bytes([250, 0, version, code])


def desktop_size(screens: int = 1) -> bytes:
    return struct.pack(">BxHHBx", 251, 1280, 1024, screens) + struct.pack(">IHHHHI", 7, 0, 0, 1280, 1024, 0) * screens


def gii(body: bytes, order: str = ">") -> bytes:
    return struct.pack(order + "BBH", 253, 0x81 if order == ">" else 1, len(body)) + body


def scan_code(code: int, down: int = 1) -> bytes:
    return struct.pack(">BBxxI", 254, down, code)


def qemu_key(keysym: int, keycode: int, down: int = 1) -> bytes:
    return struct.pack(">BBHII", 255, 0, down, keysym, keycode)


PIXEL_FORMAT: Final = bytes.fromhex("00 000000 20 18 00 01 00ff 00ff 00ff 00 08 10 000000")
CONTINUOUS_UPDATES: Final = bytes.fromhex("96 01 0000 0000 0400 0300")
AUDIO_ON: Final = bytes.fromhex("ff 01 0000")
AUDIO_OFF: Final = bytes.fromhex("ff 01 0001")
AUDIO_FORMAT: Final = bytes.fromhex("ff 01 0002 03 02 0000ac44")

EVERY_KIND: Final[Messages] = [
    (Kind.SET_PIXEL_FORMAT, PIXEL_FORMAT),
    (Kind.SET_ENCODINGS, encodings(5, 1, 0, -223)),
    (Kind.SET_ENCODINGS, encodings()),
    (Kind.UPDATE_REQUEST, update_request()),
    (Kind.KEY, key(0x61)),
    (Kind.POINTER, pointer(640, 480, 1)),
    (Kind.POINTER, pointer(640, 480, 0xFF)),
    (Kind.CUT_TEXT, cut_text(b"a password")),
    (Kind.CUT_TEXT, cut_text(b"")),
    (Kind.CONTINUOUS_UPDATES, CONTINUOUS_UPDATES),
    (Kind.FENCE, fence()),
    (Kind.FENCE, fence(bytes(64))),
    (Kind.XVP, xvp(2)),
    (Kind.SET_DESKTOP_SIZE, desktop_size(0)),
    (Kind.SET_DESKTOP_SIZE, desktop_size(255)),
    (Kind.GII, gii(b"\0\1")),
    (Kind.GII, gii(b"\1\0" * 200, "<")),
    (Kind.GII, gii(b"")),
    (Kind.SCAN_CODE, scan_code(0x1E)),
    (Kind.QEMU_KEY, qemu_key(0x61, 0x1E)),
    (Kind.QEMU_AUDIO, AUDIO_ON),
    (Kind.QEMU_AUDIO, AUDIO_OFF),
    (Kind.QEMU_AUDIO, AUDIO_FORMAT),
]

NOVNC: Final[Messages] = [
    (Kind.SET_PIXEL_FORMAT, PIXEL_FORMAT),
    (
        Kind.SET_ENCODINGS,
        bytes.fromhex(
            "02 00 0019 00000001 00000007 fffffefc 00000010 00000015 00000005 00000002 00000006 00000000 ffffffe6 ffffff02"
            "ffffff21 ffffff20 fffffefe fffffefb fffffecc fffffecb fffffec8 fffffec7 fffffecd c0a1e5ce fffffec4"
            "574d5664 ffffff11 00000032"
        ),
    ),
    (Kind.UPDATE_REQUEST, bytes.fromhex("03 00 0000 0000 0400 0300")),
    (Kind.POINTER, bytes.fromhex("05 00 0100 00c8")),
    (Kind.UPDATE_REQUEST, bytes.fromhex("03 01 0000 0000 0400 0300")),
    (Kind.POINTER, bytes.fromhex("05 01 0100 00c8")),
    (Kind.POINTER, bytes.fromhex("05 00 0100 00c8")),
    (Kind.QEMU_KEY, bytes.fromhex("ff 00 0001 0000ffe3 0000001d")),
    (Kind.QEMU_KEY, bytes.fromhex("ff 00 0001 0000ffe9 00000038")),
    (Kind.QEMU_KEY, bytes.fromhex("ff 00 0001 0000ffff 000000d3")),
    (Kind.QEMU_KEY, bytes.fromhex("ff 00 0000 0000ffff 000000d3")),
    (Kind.CUT_TEXT, bytes.fromhex("06 000000 fffffffc 02000001")),
    (Kind.UPDATE_REQUEST, bytes.fromhex("03 01 0000 0000 0400 0300")),
]
"""noVNC 1.6 at a QEMU: its format and encodings, a click, Ctrl-Alt-Del's beginning, a clipboard's announcement."""

VNCDOTOOL: Final[Messages] = [
    (Kind.SET_PIXEL_FORMAT, bytes.fromhex("00 000000 20 18 00 01 00ff 00ff 00ff 00 08 10 000000")),
    (Kind.SET_ENCODINGS, bytes.fromhex("02 00 0003 00000000 ffffff21 ffffff20")),
    (Kind.UPDATE_REQUEST, bytes.fromhex("03 00 0000 0000 0280 01e0")),
    (Kind.KEY, bytes.fromhex("04 01 0000 00000072")),
    (Kind.KEY, bytes.fromhex("04 00 0000 00000072")),
    (Kind.POINTER, bytes.fromhex("05 00 0064 0064")),
    (Kind.POINTER, bytes.fromhex("05 01 0064 0064")),
    (Kind.POINTER, bytes.fromhex("05 00 0064 0064")),
    (Kind.CUT_TEXT, bytes.fromhex("06 000000 00000005 68656c6c6f")),
    (Kind.UPDATE_REQUEST, bytes.fromhex("03 01 0000 0000 0280 01e0")),
]
"""``vncdo key r move 100 100 click 1 paste hello capture``."""

VIEWERS: Final = {"noVNC": NOVNC, "vncdotool": VNCDOTOOL}


def stream_of(messages: Sequence[tuple[Kind, bytes]]) -> bytes:
    return b"".join(message for _, message in messages)


_numbers: Final = st.integers(-(1 << 31), (1 << 31) - 1) | st.sampled_from([0, 5, -223, -309, -316, CLIPBOARD])

a_message: Final = st.one_of(
    st.sampled_from(EVERY_KIND),
    st.lists(_numbers, max_size=40).map(lambda numbers: (Kind.SET_ENCODINGS, encodings(*numbers))),
    st.builds(lambda *fields: (Kind.POINTER, pointer(*fields)), *[st.integers(0, 0xFFFF)] * 2, st.integers(0, 255)),
    st.binary(max_size=300).map(lambda text: (Kind.CUT_TEXT, cut_text(text))),
    st.binary(max_size=300).map(lambda body: (Kind.GII, gii(body))),
)
"""Of any kind, though none whose length hangs on what was agreed before."""


@st.composite
def pieces_of(draw: st.DrawFn, stream: bytes) -> list[bytes]:
    """The stream, cut anywhere."""
    cuts = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    return [stream[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
