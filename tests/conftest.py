"""Settings for all tests."""

from hypothesis import settings

# On a busy machine any example may take long; that says nothing about the code.
settings.register_profile("mutmeta", deadline=None)
settings.load_profile("mutmeta")
