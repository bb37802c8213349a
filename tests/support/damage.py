"""Files that are damaged in the ways that disks and networks damage them."""

from __future__ import annotations

from hypothesis import assume
from hypothesis import strategies as st


def flip(path, place=0.5):
    """Change one bit of a file, at a share of its length."""
    content = bytearray(path.read_bytes())
    content[int(len(content) * place)] ^= 0x10
    path.write_bytes(content)


@st.composite
def damaged(draw, content: bytes) -> bytes:
    """Other bytes than ``content``: some changed, cut off, added, zeroed, lost or doubled."""
    size = len(content)
    first, last = sorted([draw(st.integers(0, size - 1)), draw(st.integers(0, size))])
    changed = bytearray(content)
    match draw(st.sampled_from(["change", "change", "cut", "add", "zero", "lose", "double"])):
        case "change":
            # headers are where a changed byte does most
            place = st.integers(0, size - 1) | st.integers(0, min(size - 1, 400))
            for at in draw(st.lists(place, min_size=1, max_size=4, unique=True)):
                changed[at] ^= draw(st.integers(1, 255))
        case "cut":
            del changed[first:]
        case "add":
            changed += draw(st.binary(min_size=1, max_size=40) | st.just(bytes(512)))
        case "zero":
            changed[first:last] = bytes(last - first)
        case "lose":
            del changed[first:last]
        case "double":
            changed[first:first] = content[first:last]
    assume(bytes(changed) != content)
    return bytes(changed)
