"""The tests: ``python -m twisted.trial tests``."""

import signal

# A shell starts background jobs with SIGINT ignored, and the processes of the tests would inherit
# that: those that are interrupted would go on for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
