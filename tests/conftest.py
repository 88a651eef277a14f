"""For all tests."""

from hypothesis import settings

# No test hangs on how long something takes: machines are busy, and the first call compiles.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")
