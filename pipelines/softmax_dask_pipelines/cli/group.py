"""The command group: verbs are imported when they are called, and errors become one line and an exit code."""

import errno
import logging
import traceback
from contextlib import suppress
from importlib import import_module
from typing import Any

import click

from softmax_dask import SoftmaxDaskError, __version__
from softmax_dask_pipelines.cli.output import lost
from softmax_dask_pipelines.cli.process import as_a_command
from softmax_dask_pipelines.cli.shortages import shortage
from softmax_dask_pipelines.errors import BUG, TemporaryError, UsageError, exit_code

_VERBS = {
    "score": "scoring",
    "run": "scoring",
    "plan": "scoring",
    "evaluate": "evaluate",
    "calibrate": "fits",
    "threshold": "fits",
    "conformal": "fits",
    "compact": "compact",
    "jacobian": "jacobian",
    "status": "outputs",
    "verify": "outputs",
    "report": "report",
    "validate": "configs",
    "schema": "configs",
    "inspect": "sources",
    "doctor": "doctor",
    "demo": "demo",
}
"""Verb -> the module beside this one that defines it."""


class Group(click.Group):
    """Turns the errors of the contract into exit codes.

    Here and not around `main`: `dask softmax` calls the group without its console script.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs, in the order in which people meet them."""
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of a verb."""
        if cmd_name not in _VERBS:
            return None
        command: click.Command = getattr(import_module(f"{__package__}.{_VERBS[cmd_name]}"), cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The verb that the first argument names; an unknown one comes with the nearest that there is."""
        name = click.utils.make_str(args[0])
        if name not in _VERBS and not name.startswith("-"):
            ctx.fail(f"{name!r} is no verb; expected one of {', '.join(_VERBS)}.{_nearest(name)}")
        return super().resolve_command(ctx, args)

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Parse what stands before the verb; --help and --version print here."""
        try:
            return super().make_context(*args, **kwargs)
        except BrokenPipeError:
            raise
        except OSError as error:
            problem = lost(error)
            click.echo(f"Error: {problem}", err=True)
            raise click.exceptions.Exit(problem.exit_code) from error

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb."""
        # Where an error ends the process, asyncio may log reads of zarr that are still pending: one line is enough.
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        with as_a_command():
            return self._invoke(ctx)

    def _invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except SoftmaxDaskError as error:
            _fail(ctx, str(error), exit_code(error))
        except KeyboardInterrupt:
            _fail(ctx, "interrupted; nothing was written.", TemporaryError.exit_code)
        except click.UsageError as error:
            text = error.format_message()
            _fail(ctx, f"{text if text.endswith('?') else text.rstrip('.') + '.'} {_help_of(error)}", error.exit_code)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except UnicodeEncodeError as error:
            _fail(ctx, _unusable_name(error), UsageError.exit_code)
        except BrokenPipeError:
            raise  # whoever read our help has gone: click ends quietly
        except OSError as error:
            if error.errno != errno.ENOSPC or error.filename is not None:
                _fail_unexpectedly(ctx, error)
            # What runs write goes through `storage`, so this is the help of a verb, which click prints.
            _fail(ctx, str(lost(error)), TemporaryError.exit_code)
        except Exception as error:
            _fail_unexpectedly(ctx, error)


def _nearest(name: str) -> str:
    from difflib import get_close_matches

    nearest = get_close_matches(name, _VERBS, n=1)
    return f" Did you mean {nearest[0]!r}?" if nearest else ""


def _unusable_name(error: UnicodeEncodeError) -> str:
    """Of a name that Linux has and a library that takes text cannot take."""
    return f"{error.object}: is a name that is not UTF-8; expected one that is. Rename it, or link to it by another."


def _fail(ctx: click.Context, message: str, code: int) -> None:
    with suppress(OSError):  # nobody listens: the code still tells
        if ctx.params.get("debug"):
            traceback.print_exc()
        click.echo(f"Error: {' '.join(message.split())}", err=True)
    ctx.exit(code)


def _fail_unexpectedly(ctx: click.Context, error: Exception) -> None:
    if (lacking := shortage(error)) is not None:
        _fail(ctx, str(lacking), exit_code(lacking))
    text = f"{type(error).__name__}: {error}"
    _fail(ctx, f"this is our bug: {text}. Run it again with --debug, and report what it prints.", BUG)


def _help_of(error: click.UsageError) -> str:
    return f"See {error.ctx.command_path} --help." if error.ctx else ""


# The name is what `dask` lists it under; our own script shows its own.
@click.group("softmax", cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="softmax-dask")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(debug: bool) -> None:
    """Turn logits at rest into decisions at rest.

    \b
    Example:
      softmax-dask score logits.zarr decisions.parquet
    """
