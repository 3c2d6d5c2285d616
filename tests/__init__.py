"""The tests: ``python -m twisted.trial tests``."""

import signal

from hypothesis import HealthCheck, settings

# No test asserts a duration, and a busy machine is slow.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")

# A shell starts background jobs with SIGINT ignored, and the processes of the tests would inherit
# that: those that are interrupted would go on for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
