"""What a command says of itself, and standard output and error as it finds them: an encoding, a closed stream or
Python without docstrings (-OO) are no reason to fail."""

import codecs
import os
import sys


def steady_output() -> None:
    """Before a command's first word. A letter that the terminal's encoding lacks, as γ in Latin-1, is printed as "?",
    and what is said to a closed stream is lost: either would end hours of work with an error."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed, as by >&-
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    if hasattr(sys.stdout, "reconfigure"):
        # A file's name that is no UTF-8 is printed as the bytes that it is.
        utf8 = codecs.lookup(sys.stdout.encoding).name == "utf-8"
        sys.stdout.reconfigure(errors="surrogateescape" if utf8 else "replace")


def say(text: str) -> None:
    """A command's last word, to standard output: where its reader (a pager, `head`) went away, nothing is wrong. What
    it does not take, as a file on a full disk, is said on standard error, and the command ends with status 1."""
    try:
        print(text, flush=True)  # not at exit, where such a reader is an error
    except BrokenPipeError:
        silence_output()
    except OSError as error:
        silence_output()
        print(text, file=sys.stderr)
        sys.exit(f"error: standard output: {error.strerror}: it stands above; free some space for the next time")


def silence_output() -> None:
    """What is still said to a reader that went away is lost, at exit too."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def first_line(text: str | None) -> str:
    """Of a docstring, for `--help`; none where Python left them out."""
    return (text or "").partition("\n")[0]
