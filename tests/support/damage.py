"""Files that are damaged in the ways that disks and networks damage them."""

from __future__ import annotations


def flip(path, place=0.5):
    """Change one bit of a file, at a share of its length."""
    content = bytearray(path.read_bytes())
    content[int(len(content) * place)] ^= 0x10
    path.write_bytes(content)
