from hypothesis import HealthCheck, settings

# Timing on a shared machine says nothing about the code under test.
settings.register_profile("steady", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steady")
