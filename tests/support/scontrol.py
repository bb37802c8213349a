"""What SLURM's ``scontrol`` prints, as values."""

from __future__ import annotations


def described(line: str) -> dict[str, str]:
    """A line of ``scontrol -o`` as a mapping."""
    return dict(word.split("=", 1) for word in line.split() if "=" in word)


def minutes(limit: str) -> int:
    """Minutes of ``days-hours:minutes:seconds``."""
    days, _, clock = limit.rpartition("-")
    hours, more, _ = map(int, clock.split(":"))
    return (int(days or 0) * 24 + hours) * 60 + more


def megabytes(size: str) -> float:
    """MB of ``62.50G``."""
    return float(size[:-1]) * {"M": 1, "G": 1024}[size[-1]]
