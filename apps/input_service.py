"""Lend this machine's processors to a training run on another host: the `tf.data` service.

In:  a folder of crops that all hosts see under one path.
Out: decoded batches over the network, to `facekit.served.served_batches`; nothing on the disk.
Run: python -m apps.input_service --port 5050                            a dispatcher and two workers
     python -m apps.input_service --dispatcher host:5050 --host name2    more workers, on another machine

Whoever reaches the ports can make these processes read files: for a closed network only.
"""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections.abc import Sequence

from pydantic import Field, PositiveInt

from facekit import runtime
from facekit.settings import Settings, parse

# TensorFlow is imported on use: `runtime.start_quietly` has to come before it.

# A worker that has not been heard of for so long is taken for lost; its unfinished batches are made by the trainer.
LOST_AFTER_MS = 5_000


class ServiceCommand(Settings):
    """Start workers that read and decode pictures for a training run, and the dispatcher that they belong to."""

    port: int = Field(5050, ge=0, le=65535)
    """Port of the dispatcher. 0: any that is free."""

    host: str = "localhost"
    """Name by which other machines reach this one."""

    workers: PositiveInt = 2
    """Worker processes to start; one a core is usual."""

    dispatcher: str = Field("", pattern=r"^(\S+:\d+)?$")
    """Address of a dispatcher that runs already, host:port. Empty: start one here."""


def serve(settings: ServiceCommand) -> None:
    """Start everything, say where it is, and wait until stopped."""
    from tensorflow.data.experimental import service

    server, address = None, settings.dispatcher
    if not address:
        server = service.DispatchServer(
            service.DispatcherConfig(
                port=settings.port, worker_timeout_ms=LOST_AFTER_MS, job_gc_check_interval_ms=LOST_AFTER_MS
            )
        )
        address = f"{settings.host}:{server.target.rsplit(':', 1)[1]}"
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=work, args=(address, settings.host), daemon=True) for _ in range(settings.workers)
    ]
    for worker in workers:
        worker.start()
    numbers = " ".join(str(worker.pid) for worker in workers)
    print(f"Input service at {address}; workers: processes {numbers}. Ctrl-C ends it.", flush=True)
    try:
        signal.pause()
    finally:
        for worker in workers:
            worker.terminate()


def work(dispatcher: str, host: str) -> None:
    """Be a worker until the parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    runtime.start_quietly()
    from tensorflow.data.experimental import service

    config = service.WorkerConfig(
        dispatcher_address=dispatcher, worker_address=f"{host}:%port%", heartbeat_interval_ms=1000
    )
    service.WorkerServer(config).join()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 2 wrong input, 130 stopped."""
    settings = parse(ServiceCommand, argv)
    runtime.start_quietly()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        serve(settings)
    except KeyboardInterrupt:
        return runtime.INTERRUPTED
    except Exception as error:  # TensorFlow's own kinds, such as of a port that is taken
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
