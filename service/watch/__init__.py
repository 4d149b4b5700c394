"""What is seen from outside: metrics, logs, traces, and the end of a process that hangs.

    logs           log lines as JSON: one object a line, whatever is logged and whoever logs it
    machine        what the machine lends: memory of the device, and which of the service's threads live
    telemetry      metrics and request timings
    tracing        OpenTelemetry traces over OTLP/HTTP
    watchdog       ends the process when it can no longer serve and will not recover

Decides nothing about any request.
"""
