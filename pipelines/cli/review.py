"""`interavatar review`: a run's clips in a browser, and what people say of them."""

from __future__ import annotations

from typing import Annotated

import typer


def review(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="Folder of a run (its --output).")],
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Where to listen; 0: any port that is free.")
    ] = 8430,
    host: Annotated[
        str, typer.Option("--host", help="Address to listen at. Default: this machine alone can come.")
    ] = "127.0.0.1",
    reviewer: Annotated[
        str, typer.Option("--reviewer", metavar="NAME", help="Who reviews. Default: the user's name.")
    ] = "",
) -> None:
    """Look at a run's clips in a browser and say which to keep; until Ctrl-C, also while the run goes on.

    Prints the page's address. It holds a token: whoever has the address can see the clips and review them,
    nobody else can. From another machine: ssh -L 8430:127.0.0.1:8430 HOST. What is said is kept in
    DIR/reviews.parquet, one row a review; several people and several servers may review at once.
    `interavatar screen DIR` then puts what they decided into the manifest.

    Example: interavatar review out/ --reviewer Ada
    """
    from pipelines.cli.console import out, readable_errors, warn

    with readable_errors():
        import getpass
        import socket

        from manifests.storage import folder_of
        from media.temporary import temporary_folder
        from pipelines.cli.status import read_record
        from pipelines.engine.signals import sigterm_interrupts
        from pipelines.review.report import is_current, write_report
        from pipelines.review.server import Guard, is_loopback, listening, new_token, serving
        from pipelines.review.site import Site, clean_name

        run = folder_of(folder)
        read_record(run)
        try:
            name = clean_name(reviewer) or clean_name(getpass.getuser())
        except OSError:  # a container's user without a name
            name = "reviewer"
        if not is_current(run):
            write_report(run)
        sigterm_interrupts()
        with listening(host, port) as at, temporary_folder() as copies:
            token, bound = new_token(), at.getsockname()[1]
            if not is_loopback(host):
                warn(
                    f"--host {host}: whoever reaches this machine and has the address below sees the clips; "
                    "what is sent is not encrypted"
                )
            shown = socket.gethostname() if host in ("0.0.0.0", "::") else host
            address = f"[{shown}]" if ":" in shown else shown
            out().print(f"review    http://{address}:{bound}/{token}/ as {name}; Ctrl-C ends it")
            try:
                app = Guard(Site(run, copies, name).app(), token, {host, shown, socket.getfqdn()})
                serving(app).run(sockets=[at])
            except KeyboardInterrupt:  # it has answered what was under way
                out().print(f"ended; `interavatar screen {folder}` puts what was decided into the manifest")
