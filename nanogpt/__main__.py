"""The command `nanogpt`, and `python -m nanogpt`.

Modules are imported inside, so that Ctrl-C while they load ends quietly too.
"""

import os
import signal


def main() -> None:
    """Run the command line."""
    interrupt = signal.getsignal(signal.SIGINT)
    if interrupt is signal.default_int_handler:
        # Nothing has begun yet. An exception would end as whatever error an import makes of it.
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    from nanogpt.cli.main import main as run

    signal.signal(signal.SIGINT, interrupt)
    run()


if __name__ == "__main__":
    main()
