"""Writes docs/reference/commands.md and config.md from the commands (typer) and the config (pydantic).

python scripts/reference.py           writes them
python scripts/reference.py --check   writes nothing; exit code 1 if one of them is out of date
"""

import ast
import enum
import inspect
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import typer
from typer.models import ArgumentInfo, ParameterInfo

from minisora import config
from minisora.cli import app

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT / "docs" / "reference"
_NOTE = "<!-- Written by scripts/reference.py: edit the source it names, then run it again. -->"
# Counts and seeds have limits that nobody meets; they are not worth a reader's eye.
_NO_LIMIT = 2**31 - 1
_BOUNDS = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "exclusiveMaximum": "below"}


def main() -> int:
    """Write the pages, or with --check compare them; the exit code."""
    pages = {"commands.md": commands_page(), "config.md": config_page()}
    if sys.argv[1:] not in ([], ["--check"]):
        print("error: the one option is --check", file=sys.stderr)
        return 2
    stale = [
        name
        for name, text in pages.items()
        if not (REFERENCE / name).is_file() or (REFERENCE / name).read_text() != text
    ]
    if sys.argv[1:]:
        for name in stale:
            print(f"docs/reference/{name} is out of date: run 'python scripts/reference.py'", file=sys.stderr)
        return int(bool(stale))
    for name in stale:
        (REFERENCE / name).write_text(pages[name])
        print(f"wrote docs/reference/{name}")
    return 0


def commands_page() -> str:
    """Every command with its arguments and options."""
    lines = [
        "# Commands",
        "",
        _NOTE,
        "",
        "What `minisora COMMAND --help` prints, on one page. An option marked *repeatable* may be given several",
        "times. A command that cannot go on prints one line on stderr and exits with code 2.",
        "",
    ]
    for name, callback in _commands(app):
        lines += [f"## minisora {name}", "", inspect.cleandoc(callback.__doc__ or ""), ""]
        lines += ["| Option | Takes | Default | What it does |", "|---|---|---|---|"]
        hints = get_type_hints(callback, include_extras=True)
        for key, parameter in inspect.signature(callback).parameters.items():
            # Typer's own, which nobody types.
            if hints[key] is typer.Context:
                continue
            lines.append(_option_row(key, parameter.default, hints[key]))
        lines.append("")
    return "\n".join(lines)


def config_page() -> str:
    """Every key of a config, by section."""
    lines = [
        "# Config keys",
        "",
        _NOTE,
        "",
        "A run is one YAML file plus overrides: `--set dit.width=256`. A key that is not on this page is refused, and",
        "the message names the nearest one that is. The shipped files lie in `configs/`; `--config toy` finds one by",
        "name. What a run was trained with stands in `RUN/config.yaml`.",
        "",
    ]
    comments = _comments()
    for name, field in config.Config.model_fields.items():
        section = field.annotation
        if not (isinstance(section, type) and issubclass(section, config.Section)):
            lines += ["## Top level", "", *_section_table(config.Config, [name], comments), ""]
            continue
        lines += [f"## {name}", "", (section.__doc__ or "").replace("\n", " "), ""]
        lines += [*_section_table(section, list(section.model_fields), comments), ""]
    lines += ["## data.augment", "", config.AugmentConfig.__doc__ or "", ""]
    lines += [*_section_table(config.AugmentConfig, list(config.AugmentConfig.model_fields), comments), ""]
    lines += ["## An entry of data.buckets", "", config.BucketConfig.__doc__ or "", ""]
    lines += [*_section_table(config.BucketConfig, list(config.BucketConfig.model_fields), comments), ""]
    return "\n".join(lines)


def _commands(group: typer.Typer, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for command in group.registered_commands:
        callback = command.callback
        assert callback is not None
        yield prefix + (command.name or callback.__name__.replace("_", "-")), callback
    for sub in group.registered_groups:
        if sub.typer_instance is not None:
            yield from _commands(sub.typer_instance, f"{prefix}{sub.name} ")


def _option_row(key: str, default: Any, hint: Any) -> str:
    base, about = get_args(hint)[0], get_args(hint)[1]
    assert isinstance(about, ParameterInfo)
    kinds = (
        [kind for kind in get_args(base) if kind is not type(None)] if type(None) in get_args(base) else []
    )
    kind = kinds[0] if kinds else base
    if isinstance(about, ArgumentInfo):
        name = f"`{key.strip('_').upper()}`"
    else:
        long = f"--{key.strip('_').replace('_', '-')}"
        names = [*(about.param_decls or ())]
        if not any(each.startswith("--") for each in names):
            names.insert(0, long)
        name = ", ".join(f"`{each}`" for each in sorted(names, key=lambda each: -len(each)))
    if default is inspect.Parameter.empty:
        shown = "required"
    elif default is None or default is False or default == "":
        shown = ""
    else:
        words = default if isinstance(default, tuple) else (default,)
        shown = f"`{' '.join(str(each) for each in words)}`"
    return _row(name, _takes(kind, about), shown, about.help or "")


def _takes(kind: Any, about: ParameterInfo) -> str:
    parts = get_args(kind)
    if getattr(kind, "__origin__", None) is list:
        return f"{_takes(parts[0], about)}, repeatable"
    if getattr(kind, "__origin__", None) is tuple:
        return " ".join([_takes(parts[0], about).split(",")[0]] * len(parts)) + _range(about)
    if kind is bool:
        return ""
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return ", ".join(f"`{each.value}`" for each in kind)
    names = {int: "whole number", float: "number", str: "text", Path: "path"}
    return names.get(kind, str(kind)) + _range(about)


def _range(about: ParameterInfo) -> str:
    if about.min is None and about.max is None:
        return ""
    low = "" if about.min is None else f"{about.min:,}"
    return f", from {low}" if about.max is None or about.max >= _NO_LIMIT else f", {low} to {about.max:,}"


def _section_table(
    section: type[config.Section], keys: list[str], comments: dict[tuple[str, str], str]
) -> list[str]:
    properties = section.model_json_schema()["properties"]
    rows = ["| Key | Takes | Default | What it is |", "|---|---|---|---|"]
    for key in keys:
        field = section.model_fields[key]
        about = next(filter(None, (comments.get((each.__name__, key)) for each in section.__mro__)), "")
        if isinstance(field.default, config.Section):
            rows.append(_row(f"`{key}`", "a section, below", "", about))
            continue
        default = "required" if field.is_required() else f"`{_yaml(field.default)}`"
        rows.append(_row(f"`{key}`", _schema_words(properties[key]), default, about))
    return rows


def _yaml(value: Any) -> str:
    return str(value) if isinstance(value, str) else json.dumps(value)


def _schema_words(schema: dict[str, Any]) -> str:
    """What a value may be, from its JSON schema."""
    if "anyOf" in schema:
        return " or ".join(_schema_words(each) for each in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{_yaml(each)}`" for each in schema["enum"])
    if "const" in schema:
        return f"`{_yaml(schema['const'])}`"
    if schema.get("type") == "array":
        if "prefixItems" in schema:
            return f"{len(schema['prefixItems'])} of: {_schema_words(schema['prefixItems'][0])}"
        return f"list of: {_schema_words(schema['items'])}"
    if "$ref" in schema:
        return "entries as below"
    if schema.get("type") == "null":
        return "`null`"
    names = {"integer": "whole number", "number": "number", "string": "text", "boolean": "`true`, `false`"}
    word = names.get(schema.get("type", ""), str(schema.get("type", "any")))
    if schema.get("format") == "path":
        word = "path"
    bounds = [
        f"{words} {schema[key]:,.6g}" if isinstance(schema[key], float) else f"{words} {schema[key]:,}"
        for key, words in _BOUNDS.items()
        if key in schema and schema[key] < _NO_LIMIT
    ]
    return " ".join([word, *bounds])


def _comments() -> dict[tuple[str, str], str]:
    """The comments above the fields of config.py: (class, field) -> text.

    Not descriptions of pydantic: to read them off the source takes `minisora --help` a tenth of a second.
    """
    source = Path(config.__file__).read_text()
    lines = source.splitlines()
    comments: dict[tuple[str, str], str] = {}
    for owner in (node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)):
        for node in owner.body:
            if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)):
                continue
            first = node.lineno - 1
            while lines[first - 1].strip().startswith("#"):
                first -= 1
            words = " ".join(line.strip("# ") for line in lines[first : node.lineno - 1])
            comments[owner.name, node.target.id] = words
    return comments


def _row(*cells: str) -> str:
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    sys.exit(main())
