"""Gauges of the running service: read whenever its metrics are."""

from service.load_failure import REASONS
from service.serving import Serving
from service.watch.machine import machine_metrics


def watch_service(serving: Serving) -> None:
    """Gauges of the whole service; each reads a number that the event loop keeps, or asks the kernel."""
    watch = serving.telemetry.watch
    watch("requests_in_flight", "Requests not yet answered, this one included", lambda: serving.in_flight)
    watch("bodies_bytes", "Bytes of the bodies of requests in flight", lambda: serving.bodies_bytes)
    watch("ready", "1 when /readyz is 200", lambda: float(serving.unhealthy_reason() is None))
    watch(
        "draining",
        "1 while the service finishes what it has and takes nothing new",
        lambda: float(serving.draining),
    )
    watch(
        "release_refused",
        "1 while CURRENT names a release that could not be taken into service",
        lambda: float(serving.refused is not None),
    )
    for outcome in ("swapped", "failed"):
        serving.telemetry.reload(outcome, count=0)
    for reason in REASONS:
        serving.telemetry.refusal(reason, count=0)
    if serving.live is not None:
        watch(
            "live_items",
            "Items put since the release was built: a rebuild takes them in",
            lambda: len(serving.state.delta.row_of),
        )
        watch(
            "live_sequence",
            "Number of the last change that is laid over the release",
            lambda: serving.state.delta.sequence,
        )
    serving.telemetry.collect(lambda: machine_metrics(serving.state.encoder.device))
    serving.telemetry.collect(lambda: serving.state.drift.metrics())
