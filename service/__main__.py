"""`python -m service`: see `service.command`. Signals are taken first: all else takes seconds to import."""

from service.signals import StartSignals

if __name__ == "__main__":
    signals = StartSignals()
    from service.command import command

    command(obj=signals)
