"""How much is tried: always the same few cases, or an hour of new ones with --hypothesis-profile=long."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "quick", max_examples=40, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)
settings.register_profile("long", settings.get_profile("quick"), max_examples=10_000, derandomize=False)
settings.load_profile("quick")
