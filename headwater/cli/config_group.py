"""`headwater config check` of the file of `headwater process`, and what its group's state would become."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwater.cli import words
from headwater.errors import UserError
from headwater.settings.group import load_group
from headwater.toml.source import table_of

if TYPE_CHECKING:
    from processors.group.settings import GroupSettings
    from processors.rules.model import Rules

_NODES_KEYS = ("role", "node", "data_dir")
ANSWER_S_MAX = 5.0


def is_group_file(path: str) -> bool:
    """Whether a file is one of `headwater process` and none of a node; one that cannot be read is not."""
    told = table_of(path)
    mine = "bootstrap_servers" in told or ("name" in told and "rules" in told)
    return mine and not any(key in told for key in _NODES_KEYS)


def check_group(path: str) -> None:
    """Print what a member would do, and what its group's state would become; a UserError names every mistake."""
    from headwater.app.parts import rule_warnings
    from processors.rules.files import load_rules

    settings = load_group(path)
    rules = load_rules(settings.rules)
    print(f"ok: {path}")
    print(f"a group's file, for `headwater process`: group {settings.group_id} at {settings.bootstrap_servers}")
    print(f"  runs {held(rules)}")
    for line in rule_warnings(settings.rules):
        print(f"warning: {line}")
    try:
        changes = changes_of_group(settings, rules)
    except UserError as error:
        print(f"what becomes of its state is not known: {error.what}")
        return
    for line in changes:
        print(f"at the next start {line}")


def held(rules: Rules) -> str:
    """How many windows, alerts and processors there are."""
    kinds = {"window": rules.windows, "alert": rules.alerts, "processor": rules.processors}
    return ", ".join(words.count(len(some), kind) for kind, some in kinds.items() if some)


def changes_of_group(settings: GroupSettings, rules: Rules) -> list[str]:
    """As the group's changelog says it. Raises UserError when that cannot be read."""
    try:
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        from processors.group.topics import read_changelog
    except ModuleNotFoundError as error:
        raise UserError(f"that needs the package {error.name}, pip install 'headwater[process]'") from None
    from processors.group.changelog import ChangelogError
    from processors.rules.evolution import preview_all

    try:
        listed = AdminClient(settings.client() | {"log_level": 0}).list_topics(timeout=ANSWER_S_MAX).topics
        if settings.changelog not in listed:
            return []  # the group has none yet
        views = read_changelog(settings, range(len(listed[settings.changelog].partitions)))
        states = {
            source: snapshot.state
            for view in views.values()
            for source in view.sources()
            if (snapshot := view.snapshot(source)) is not None
        }
    except (KafkaException, TimeoutError) as error:
        said = error.args[0].str() if isinstance(error, KafkaException) else str(error)
        raise UserError(f"{settings.bootstrap_servers}: {said}") from None
    except ChangelogError as error:
        raise UserError(f"{settings.changelog}: {error}") from None
    return preview_all(states, rules, settings.place, settings.name)
