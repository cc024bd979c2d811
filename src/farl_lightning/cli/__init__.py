"""The command line ``farl-lightning``.

Verbs without a model (``configs``, ``init``, ``--help``) run before anything heavy is imported.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from farl_lightning import __version__
from farl_lightning.errors import ConfigError, FarlError, did_you_mean

__all__ = ["main"]

MODEL_VERBS = ("fit", "validate", "test", "predict", "check", "preview")


def main(args: list[str] | None = None) -> int:
    """Run ``farl-lightning``.

    Args:
        args: What follows the program's name; None takes the process's arguments.

    Returns:
        The exit status: 0, 1 when a run failed, 2 when the command line is wrong, 130 when interrupted.
    """
    words = list(sys.argv[1:] if args is None else args)
    debug = "--debug" in words or os.environ.get("FARL_DEBUG", "") not in ("", "0")
    words = [word for word in words if word != "--debug"]
    try:
        return _dispatch(words)
    except SystemExit as stop:  # argparse, after it printed help
        return stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # farl-lightning configs | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        expected = _expected(error) or _lost_contact(error)
        if debug or expected is None:
            raise
        _print_error(words, expected)
        return 2 if isinstance(expected, ConfigError) else 1


def _dispatch(words: list[str]) -> int:
    """Run the verb."""
    verb, rest = (words[0], words[1:]) if words else ("--help", [])
    if verb in MODEL_VERBS:
        return _run_model_verb(verb, rest)
    if verb in _LIGHT_VERBS:
        return _LIGHT_VERBS[verb](rest)
    known = [*MODEL_VERBS, *(name for name in _LIGHT_VERBS if name[0] != "-")]
    if verb.startswith("-"):
        raise ConfigError(f"the verb comes first, such as 'farl-lightning fit {verb}'; verbs: {', '.join(known)}")
    raise ConfigError(f"there is no verb '{verb}'. {did_you_mean(verb, known)}")


def _run_model_verb(verb: str, rest: list[str]) -> int:
    """Run a verb that needs a model; a missing config is found before torch is imported."""
    if set(rest) & {"-h", "--help"}:
        from farl_lightning.cli.help import verb_help

        print(verb_help(verb))
        return 0
    from farl_lightning.cli.arguments import read_settings

    settings = read_settings(verb, ["--help" if word == "--help_all" else word for word in rest])
    from farl_lightning.cli.quiet import quiet

    quiet()
    from farl_lightning.cli.lightning_cli import run

    run(settings)
    return 0


def _help(rest: list[str]) -> int:  # noqa: ARG001
    """Print what the program can do."""
    from farl_lightning.cli.help import program_help

    print(program_help())
    return 0


def _version(rest: list[str]) -> int:  # noqa: ARG001
    """Print the version."""
    print(f"farl-lightning {__version__}")
    return 0


def _configs(rest: list[str]) -> int:
    """List the shipped configs, or print one."""
    from farl_lightning.cli.shipped import list_configs, show_config

    if rest[:1] == ["show"] and len(rest) == 2:
        print(show_config(rest[1]))
    elif not rest:
        print(list_configs())
    else:
        raise ConfigError("use 'farl-lightning configs' or 'farl-lightning configs show NAME'")
    return 0


def _data(rest: list[str]) -> int:
    """Write and check shards, index detections."""
    from farl_lightning.cli.data import run

    return run(rest)


def _benchmark(rest: list[str]) -> int:
    """Compare encoders over tasks, ways of tuning, shares of labels and seeds."""
    from farl_lightning.cli.benchmark import run

    return run(rest)


def _consolidate(rest: list[str]) -> int:
    """Join the shards of a checkpoint into one file."""
    from farl_lightning.cli.consolidate import run

    return run(rest)


def _embed(rest: list[str]) -> int:
    """Compute features of faces once, and keep them."""
    from farl_lightning.cli.embed import run

    return run(rest)


def _search(rest: list[str]) -> int:
    """Find the faces that a text describes best."""
    from farl_lightning.cli.search import run

    return run(rest)


def _probe(rest: list[str]) -> int:
    """Judge features by what simple learners get out of them."""
    from farl_lightning.cli.probe import run

    return run(rest)


def _export(rest: list[str]) -> int:
    """Write a checkpoint as ONNX or as a program of torch.export."""
    from farl_lightning.cli.export import run

    return run(rest)


def _merge(rest: list[str]) -> int:
    """Add LoRA adapters to the weights beside them."""
    from farl_lightning.cli.merge import run

    return run(rest)


def _plan(rest: list[str]) -> int:
    """Compute what a run would need on GPUs that are not at hand."""
    from farl_lightning.cli.plan import run

    return run(rest)


def _init(rest: list[str]) -> int:
    """Write a small project of one's own."""
    from farl_lightning.cli.project import write_project

    if len(rest) != 1 or rest[0].startswith("-"):
        raise ConfigError("use 'farl-lightning init DIR'")
    print(write_project(rest[0]))
    return 0


_LIGHT_VERBS: dict[str, Callable[[list[str]], int]] = {
    "benchmark": _benchmark,
    "configs": _configs,
    "consolidate": _consolidate,
    "data": _data,
    "embed": _embed,
    "export": _export,
    "init": _init,
    "merge": _merge,
    "plan": _plan,
    "probe": _probe,
    "search": _search,
    "help": _help,
    "--help": _help,
    "-h": _help,
    "--version": _version,
}


def _expected(error: BaseException | None) -> BaseException | None:
    """Return the error that explains itself (ours, or Lightning's about its settings), also when another wraps it."""
    while error is not None:
        if isinstance(error, FarlError) or type(error).__name__ == "MisconfigurationException":
            return error
        error = error.__cause__
    return None


def _lost_contact(error: BaseException) -> BaseException | None:
    """Return an explanation if another process of the run is gone."""
    if "torch" not in sys.modules:
        return None
    from farl_lightning.cli.contact import lost_contact

    return lost_contact(error)


def _print_error(words: list[str], error: BaseException) -> None:
    """Print an error in a few lines, once per machine."""
    if os.environ.get("LOCAL_RANK", "0") != "0":
        return
    verb = words[0] if words and not words[0].startswith("-") else ""
    lines = str(error).splitlines() or [type(error).__name__]
    head = f"farl-lightning {verb}".strip()
    text = f"{head}: {lines[0]}" if len(lines) == 1 else "\n  ".join([f"{head}:", *lines])
    print(text, file=sys.stderr)
