"""Entry point of the ``preshuffle`` command line.

Imports the module of the command, runs it, and prints every error as one line.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import nullcontext
from importlib import import_module

from preshuffle.api.commands import COMMANDS, EXTRAS, module_of

DEBUG = "PRESHUFFLE_DEBUG"
_OBJECTS = 200_000  # allocations before a collection
_OPENING = "Which byte order MoE expert weights must have on AMD GPUs, which kernels read it, and why."


def process() -> int:
    """Run one command as a short-lived process.

    The book is some hundred thousand objects that live as long as the process: looking for garbage among them, on the
    way and once more at the end, is a sixth of a short command. Pydantic's plugins (tracing, mostly) are not looked up.
    """
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    gc.set_threshold(_OBJECTS)
    code = main()
    gc.freeze()
    return code


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Args:
        argv: the arguments; the process's own by default.

    Returns:
        0 fine (warnings only), 1 error findings or no recipe, 2 bad input, 3 unknown, 70 a bug of preshuffle.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _dispatch(arguments)
        sys.stdout.flush()
        return code
    except SystemExit as leaving:  # argparse, after --help
        return leaving.code if isinstance(leaving.code, int) else 0
    except BrokenPipeError:
        _discard_stdout()
        from preshuffle.api.commands.options import failures

        return failures.BROKEN_PIPE
    except KeyboardInterrupt:
        from preshuffle.api.commands.options import failures

        return failures.INTERRUPTED
    except Exception as error:
        return _failed(error, arguments)


def _dispatch(arguments: list[str]) -> int:
    name, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    if name in ("-h", "--help", "help") and not rest:
        print(_help())
        return 0 if arguments else 2
    if name in ("-V", "--version"):
        import preshuffle

        print(f"preshuffle {preshuffle.__version__}")
        return 0
    if name == "help":
        name, rest = rest[0], ["--help"]
    from preshuffle.api.commands.options import parser as options

    if name != "completion":
        _warn_of_variables(arguments)
    if name not in COMMANDS:
        from preshuffle.api.commands.options import failures

        kind = "option" if name.startswith("-") else "command"
        close = options.nearest(name, COMMANDS)
        raise failures.UsageError(f"unknown {kind} {name!r}{close}; valid commands: {', '.join(COMMANDS)}")
    module = import_module(module_of(name))
    parser = options.Parser(prog=f"preshuffle {name}", description=module.__doc__)
    module.add_arguments(parser)
    args = parser.parse_args(options.join_env_values(rest))
    return _run(name, args)


def _warn_of_variables(arguments: Sequence[str]) -> None:
    """Name misspelt environment variables; for the service, all that begin with its prefix and have no reader."""
    if not any("SHUF" in name.upper() for name in os.environ):
        return
    from preshuffle.api.variables import unknown_variables

    for unknown in unknown_variables(os.environ):
        if unknown.meant or arguments[0] == "serve":
            _report(arguments, "warning", f"warning: {unknown}")


def _run(name: str, args: argparse.Namespace) -> int:
    """Run a command; name the extra that it lacks, if any."""
    from preshuffle.api.commands.options import failures

    with failures.needs_extra(f"preshuffle {name}", EXTRAS[name]) if name in EXTRAS else nullcontext():
        code: int = args.run(args)
    return code


def _help() -> str:
    from preshuffle.api.commands.options import examples, failures

    codes = ", ".join(f"{code} {what}" for code, what in failures.EXIT_CODES.items() if code <= failures.UNKNOWN)
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {what}" for name, what in COMMANDS.items()]
    return "\n".join(
        [
            "usage: preshuffle COMMAND [OPTIONS]",
            "",
            _OPENING,
            "",
            *lines,
            "",
            examples.examples_text(""),
            "",
            "Every command takes --help and --json.",
            f"Exit codes: {codes}.",
            "Environment: PRESHUFFLE_BOOK, PRESHUFFLE_TABLES (':' between paths), NO_COLOR, PRESHUFFLE_DEBUG=1.",
        ]
    )


def _failed(error: Exception, arguments: Sequence[str]) -> int:
    """Print an error for people, and for ``--json`` a problem document; return the exit code."""
    from preshuffle.api.commands.options import failures, problem_document
    from preshuffle.registry.base.errors import NoRecipeError, PreshuffleError

    if isinstance(error, PreshuffleError):
        text = str(error)
        code: int = getattr(error, "exit_code", failures.BAD_INPUT)
        code = failures.FAILED if isinstance(error, NoRecipeError) else code
    else:
        if os.environ.get(DEBUG) == "1":
            trace = "".join(traceback.format_exception(error))
            _report(arguments, "error", trace) if _logs_json(arguments) else sys.stderr.write(trace)
        first = (str(error).splitlines() or ["(no message)"])[0]
        text = f"this is a bug in preshuffle: {type(error).__name__}: {first} ({DEBUG}=1 shows where; please report it)"
        code = failures.BUG
    _report(arguments, "critical", text)
    if problem_document.wants_json(arguments):
        print(problem_document.problem_document(error, text, code))
    return code


def _report(arguments: Sequence[str], level: str, text: str) -> None:
    """Print a message for people; for a service whose log is JSON, a line of it."""
    if _logs_json(arguments):
        from preshuffle.api.log_lines import json_line

        print(json_line(level, text.removeprefix("warning: ")), file=sys.stderr)
        return
    from preshuffle.api.commands.screens import table

    for number, line in enumerate(text.splitlines()):
        shown = f"preshuffle: {line}" if number == 0 or not line.startswith(" ") else line
        print(table.printable(shown), file=sys.stderr)


def _logs_json(arguments: Sequence[str]) -> bool:
    if arguments[:1] != ["serve"]:
        return False
    from preshuffle.api.log_lines import wants_json_log

    return wants_json_log(arguments)


def _discard_stdout() -> None:
    """Redirect standard output to the null device.

    Otherwise Python's flush at exit would fail a second time.
    """
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
    except (OSError, ValueError):
        pass


if __name__ == "__main__":
    sys.exit(process())
