"""Files for tests of readers."""

import gzip


def write(path, text, encoding="utf-8"):
    """Write text (packed where the name says so), with the folders above; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = text.encode(encoding)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path
