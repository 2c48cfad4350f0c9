"""The tests mirror `xvpd/`. Beside them: `contract/`, one suite for each seam, and `e2e/`, with real parts."""

from hypothesis import HealthCheck, settings

# No test may fail because the machine is busy.
settings.register_profile("xvpd", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("xvpd")
