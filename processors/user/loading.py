"""A user's processor from its file: loaded by path, checked, and made with its settings."""

from __future__ import annotations

import copy
import importlib.util
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import msgspec

from devices.user_code import blame
from headwater.errors import UserError
from processors.user.column_form import ColumnProcessor
from processors.user.host import DEADLETTER
from processors.user.names import Base, argument_of, name_of
from processors.user.outs import why_not
from processors.user.reading_form import Processor
from processors.user.rule import ProcessorRule
from processors.user.states import Codec


class Loaded:
    """A processor's class, and what its rule makes of it. Raises `UserError` for what cannot work."""

    def __init__(self, rule: ProcessorRule, cls: type[Base], make: Callable[[], Base]) -> None:
        self.cls = cls
        self.rule = msgspec.structs.replace(rule, topic=rule.topic or cls.topic)
        self.make = make
        self.outs = rule.out or cls.outs(rule.name)
        self.state = argument_of(cls, ColumnProcessor if issubclass(cls, ColumnProcessor) else Processor)
        for topic in self.outs:
            _check_topic(topic, self.rule)
        if issubclass(cls, Processor):
            Codec(self.state)

    @property
    def topics(self) -> tuple[str, ...]:
        """All topics that it may write to."""
        return (*self.outs, DEADLETTER)

    def version_of(self, topic: str) -> str:
        """What its outputs in a topic are numbered under."""
        return f"{self.rule.name}@{self.cls.version}:{topic}"


def _check_topic(topic: str, rule: ProcessorRule) -> None:
    if why := why_not(topic, rule.topic):
        raise UserError(f"processor {rule.name} cannot write to “{topic}”: {why}", hint="Name another topic in `out`.")


def load(rule: ProcessorRule) -> Loaded:
    """Run the file's code and find the class. Raises `UserError` naming file and line."""
    module = _module(rule.file)
    cls = _class(module, rule)
    loaded = Loaded(rule, cls, lambda: cls(**rule.settings))
    loaded.make()
    return loaded


def of_instance(processor: Base, name: str = "") -> Loaded:
    """A processor that a test has made itself."""
    cls = type(processor)
    file = getattr(sys.modules.get(cls.__module__), "__file__", None) or ""
    return Loaded(ProcessorRule(name=name or name_of(cls), file=file), cls, lambda: copy.copy(processor))


def _module(file: str) -> ModuleType:
    name = f"headwater_processor_{zlib.crc32(file.encode()):08x}"
    place = importlib.util.spec_from_file_location(name, file)
    if place is None or place.loader is None:
        raise UserError(f"{file} cannot be loaded", hint="A processor's file ends in .py.")
    module = importlib.util.module_from_spec(place)
    sys.modules[name] = module  # dataclasses and annotations look themselves up there
    try:
        place.loader.exec_module(module)
    except FileNotFoundError:
        raise UserError(f"there is no file {file}", hint="A relative path stands against the rule file.") from None
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise UserError(blame(error, file), hint=_why(error, file)) from error
    return module


def _why(error: BaseException, file: str) -> str:
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    if missing and (Path(file).parent / f"{missing.partition('.')[0]}.py").exists():
        return "A processor is one file; make what several share a package and install it beside Headwater."
    if missing:
        return f"Install {missing.partition('.')[0]} into the environment that Headwater runs in."
    return "Mend the processor's file."


def _class(module: ModuleType, rule: ProcessorRule) -> type[Base]:
    found = {
        name: one
        for name, one in vars(module).items()
        if isinstance(one, type) and issubclass(one, Base) and one.__module__ == module.__name__
    }
    if rule.class_:
        if rule.class_ not in found:
            has = f"it has {', '.join(found)}" if found else "it has no processor at all"
            raise UserError(f"{rule.file} has no processor {rule.class_}; {has}")
        return found[rule.class_]
    if len(found) != 1:
        raise UserError(
            f"{rule.file} has {', '.join(found) if found else 'no processor'}",
            hint='Name one in its rule: class = "…".' if found else "Write class Mine(Processor[State]): … in it.",
        )
    return next(iter(found.values()))
