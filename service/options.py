"""The settings as a command's options, and in words for docs/settings.md: both from the model alone."""

import inspect
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Annotated, Any

import typer
from pydantic import SecretStr
from pydantic.fields import FieldInfo
from rich.markup import escape

from service.settings import GROUPS, MEBIBYTE, PREFIX, Settings

_KINDS = {int: "integer", float: "number", Path: "path", str: "text", bool: "true|false", SecretStr: "text"}


@dataclass(frozen=True)
class Setting:
    """One field of Settings, in words."""

    name: str
    group: str
    words: str
    kind: str  # what a value looks like: integer, path, auto|cpu|gpu …
    default: str  # as a variable would give it, with the size in MiB beside large numbers of bytes
    is_secret: bool  # has no option: others on the machine can read a command line

    @property
    def variable(self) -> str:
        return f"{PREFIX}{self.name.upper()}"


def all_settings() -> Iterator[Setting]:
    """Every setting, in the model's order."""
    group = ""
    for name, field in Settings.model_fields.items():
        group = GROUPS.get(name, group)
        words, is_secret = field.description or "", _type_of(field) is SecretStr
        yield Setting(name, group, words, _kind(field), _default(field), is_secret)


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command (of a context and keywords) an option for each setting; None where it is not given."""
    context = inspect.signature(command).parameters["context"]
    options = [_parameter(each) for each in all_settings() if not each.is_secret]
    command.__signature__ = inspect.Signature([context, *options])  # type: ignore[attr-defined]
    return command


def secrets_in_words() -> str:
    """The settings that are variables only, for the end of a command's help."""
    secrets = (f"{each.variable} {_help(each)}" for each in all_settings() if each.is_secret)
    return f"A variable only, as others can read a command line: {'; '.join(secrets)}."


def _parameter(setting: Setting) -> inspect.Parameter:
    is_flag = setting.kind == _KINDS[bool]
    option = typer.Option(
        help=f"{_help(setting)} {escape(f'[{setting.variable}]')}",
        metavar=None if is_flag else setting.kind,
        rich_help_panel=setting.group,
    )
    given = Annotated[bool | None, option] if is_flag else Annotated[str | None, option]
    return inspect.Parameter(setting.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=given)


def _help(setting: Setting) -> str:
    return escape(f"{setting.words} (default: {setting.default})" if setting.default else setting.words)


def _type_of(field: FieldInfo) -> Any:
    """Without `| None`."""
    choices = [each for each in typing.get_args(field.annotation) if each is not NoneType]
    return choices[0] if NoneType in typing.get_args(field.annotation) else field.annotation


def _kind(field: FieldInfo) -> str:
    kind = _type_of(field)
    if typing.get_origin(kind) is typing.Literal:
        return "|".join(typing.get_args(kind))
    return "a,b,…" if typing.get_origin(kind) is tuple else _KINDS[kind]


def _default(field: FieldInfo) -> str:
    value = field.default
    if field.is_required() or value is None:
        return ""  # its words say what that means
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(value)
    if isinstance(value, int) and value >= MEBIBYTE and value % MEBIBYTE == 0:
        return f"{value}, {value // MEBIBYTE} MiB"
    return f"{value:g}" if isinstance(value, float) else str(value)
