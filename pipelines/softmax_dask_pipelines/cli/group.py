"""The command group: verbs are imported when they are called, and errors become one line and an exit code."""

import signal
import sys
import traceback
import warnings
from importlib import import_module
from types import FrameType
from typing import Any

import click

from softmax_dask import SoftmaxDaskError, __version__
from softmax_dask_pipelines.errors import BUG, TemporaryError, exit_code

_VERBS = {
    "score": "scoring",
    "run": "scoring",
    "plan": "scoring",
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

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb."""
        warnings.showwarning = _show_warning
        # Schedulers end a job by SIGTERM: to us the same as Ctrl-C.
        signal.signal(signal.SIGTERM, _interrupt)
        try:
            return super().invoke(ctx)
        except SoftmaxDaskError as error:
            _fail(ctx, str(error), exit_code(error))
        except KeyboardInterrupt:
            _fail(ctx, "interrupted; nothing was written.", TemporaryError.exit_code)
        except click.UsageError as error:
            _fail(ctx, f"{error.format_message().rstrip('.')}. {_help_of(error)}", error.exit_code)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except BrokenPipeError:
            raise  # whoever read our output has gone: click ends quietly
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            _fail(ctx, f"this is our bug: {text}. Run it again with --debug, and report what it prints.", BUG)


def _fail(ctx: click.Context, message: str, code: int) -> None:
    if ctx.params.get("debug"):
        traceback.print_exc()
    click.echo(f"Error: {' '.join(message.split())}", err=True)
    ctx.exit(code)


def _help_of(error: click.UsageError) -> str:
    return f"See {error.ctx.command_path} --help." if error.ctx else ""


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"Warning: {message}", file=sys.stderr)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


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
