"""Kinds of numbers that a command line takes, each refused in a line where it is none: types for argparse."""

import argparse


def at_least_one(text: str) -> int:
    """A count on the command line."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: give a whole number of 1 or more")
    return int(text)


def none_or_more(text: str) -> int:
    """A count on the command line that may be 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}: give a whole number of 0 or more")
    return int(text)


def share(text: str) -> float:
    """A share on the command line."""
    try:
        if 0 <= float(text) <= 1:  # not NaN
            return float(text)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r}: give a number from 0 to 1")
