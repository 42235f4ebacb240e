"""Seeds from names, so that no draw depends on the order in which things run."""

import hashlib


def stable_seed(*parts: object) -> int:
    """A 63-bit seed from any printable parts, the same on every machine and run.

    >>> stable_seed("task", 0, "GB1"), stable_seed(1, 23) == stable_seed(12, 3)
    (2199405592100047561, False)
    """
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
