"""What tests of scripts ask of an answer."""

from __future__ import annotations


def refused(result, *words) -> None:
    """The script ended with bad input: exit code 2, all of the words, no traceback."""
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    for text in words:
        assert text in result.stderr
