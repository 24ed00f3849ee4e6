"""`headwater log verify|dump|repair|to-kafka`: declarations only, as in `main`."""

from __future__ import annotations

from typing import Annotated

import typer

from headwater.cli.options import Config

log_app = typer.Typer(
    help="The log's own files: verify, dump, repair, to-kafka.", no_args_is_help=True, rich_markup_mode=None
)

_Folder = Annotated[
    str | None,
    typer.Argument(help="A data directory; the node's own when left out."),
]
_AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]


@log_app.command("verify")
def log_verify(folder: _Folder = None, config: Config = None, as_json: _AsJson = False) -> None:
    """Check every batch's CRC, offsets, indexes, hash chain and small files. Changes nothing; the node may run.

    Exit 0 nothing is damaged, 1 something is, 2 it cannot be read or is of a newer format.

    \b
    Examples:
      headwater log verify
      headwater log verify /var/lib/headwater
    """
    from headwater.cli.log import verify

    raise typer.Exit(verify(folder, config, as_json=as_json))


@log_app.command("dump")
def log_dump(
    file: Annotated[str, typer.Argument(help="A .log, .index, .timeindex, .txnindex or .snapshot.")],
    records: Annotated[bool, typer.Option("--records", help="Keys, values and headers too.")] = False,
    as_json: _AsJson = False,
) -> None:
    """Print what is in one file of the log: its batches, or its entries. Exit 0 all could be read, 1 some is bad.

    \b
    Examples:
      headwater log dump data/log/readings-0/00000000000000000000.log
      headwater log dump --records --json data/log/events-0/00000000000000000000.log
    """
    from headwater.cli.log import dump

    raise typer.Exit(dump(file, records=records, as_json=as_json))


@log_app.command("repair")
def log_repair(folder: _Folder = None, config: Config = None) -> None:
    """Mend what verify finds, on a stopped node: damage goes to quarantine, the rest is served.

    Exit 0 all is well after it, 1 something is left as it is, 2 the node runs or nothing can be done.

    \b
    Examples:
      headwater log repair
      headwater log repair /var/lib/headwater
    """
    from headwater.cli.log import repair

    raise typer.Exit(repair(folder, config))


@log_app.command("to-kafka")
def log_to_kafka(
    broker: Annotated[str, typer.Argument(metavar="LOG_DIR", help="One of the broker's log.dirs; the broker stopped.")],
    folder: _Folder = None,
    config: Config = None,
) -> None:
    """Give a stopped node's topics to a stopped Apache Kafka broker. The node's own files stay as they are.

    The broker must know the topics: those that it does not are printed, as commands that create them.
    Exit 0 copied, 1 topics must be created first, 2 nothing was done.

    \b
    Examples:
      headwater log to-kafka /var/lib/kafka/data
      headwater log to-kafka /var/lib/kafka/data /mnt/card/var/lib/headwater
    """
    from headwater.cli.log import data_dir
    from headwater.cli.to_kafka import to_kafka

    raise typer.Exit(to_kafka(broker, data_dir(folder, config)))
