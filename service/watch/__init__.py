"""What is seen from outside: metrics, logs, traces, drift, and the end of a process that hangs.

    drift          how far what comes lies from what the encoder was proven on
    drift_pairs    what relevance a good query can expect
    drift_verdict  from departures to "as proven", "has moved" or "far", in plain language
    drift_watch    drift of one release
    gauges         what is read of the running service whenever metrics are
    logs           log lines as JSON: one object a line, whatever is logged and whoever logs it
    machine        what the machine lends: memory of the device, and which of the service's threads live
    telemetry      metrics and request timings
    tracing        OpenTelemetry traces over OTLP/HTTP
    watchdog       ends the process when it can no longer serve and will not recover

Decides nothing about any request.
"""
