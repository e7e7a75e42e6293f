"""Standard output and error as a command finds them: their encoding and their absence are no reason to fail."""

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
