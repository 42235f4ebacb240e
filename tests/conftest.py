"""Settings for all tests."""

import signal

from hypothesis import settings

# A shell starts background jobs with Ctrl-C ignored, and processes pass that on; the tests of
# Ctrl-C need it to mean something, here and in the processes they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# On a busy machine any example may take long; that says nothing about the code.
settings.register_profile("mutmeta", deadline=None)
settings.load_profile("mutmeta")
