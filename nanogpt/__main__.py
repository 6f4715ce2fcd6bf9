"""The command `nanogpt`, also started by `python -m nanogpt`.

The other modules are imported late, so that Ctrl-C while they load prints no traceback.
"""

import os
import signal


def main() -> None:
    """Run the command line."""
    interrupt = signal.getsignal(signal.SIGINT)
    if interrupt is signal.default_int_handler:
        # Nothing has started yet. An import might turn an exception into another error.
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    from nanogpt.cli.main import main as run

    signal.signal(signal.SIGINT, interrupt)
    run()


if __name__ == "__main__":
    main()
