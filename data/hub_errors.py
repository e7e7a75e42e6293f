"""What the Hugging Face Hub's client raises, and what to say of it."""

from __future__ import annotations

from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

# The base of every fault of the HTTP client that this huggingface_hub uses (httpx, httpx2), a lost network among them.
_HTTP_FAULT = HfHubHTTPError.__bases__[0]
# ImportError: a SOCKS proxy (ALL_PROXY) wants a package of its own, which the client then names.
HUB_ERRORS = (_HTTP_FAULT, EntryNotFoundError, HFValidationError, OSError, ImportError)


def said_of(error: Exception, name: str) -> str:
    """One of `HUB_ERRORS` in a line: what is wrong with `name`, and the mend."""
    first = str(error).strip().split("\n")[0]
    if isinstance(error, HFValidationError):
        return f"{name}: is no name on the Hub ({first}): give NAME/REPOSITORY"
    if isinstance(error, LocalEntryNotFoundError):
        return f"{name}: the Hub isn't reached ({first}); check the network"
    if isinstance(error, (RepositoryNotFoundError, RevisionNotFoundError, EntryNotFoundError)):
        return f"{name}: is not on the Hub, or private ({first}); check the name, or log in with `hf auth login`"
    if isinstance(error, HfHubHTTPError):
        return f"{name}: the Hub refused ({first}); log in with `hf auth login`, or try again later"
    if isinstance(error, (_HTTP_FAULT, ConnectionError, ImportError)):
        return f"{name}: the Hub isn't reached ({first}); check the network"
    return str(error)
