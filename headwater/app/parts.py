"""What the files that a configuration names say: profiles and rules, read before anything is opened."""

from __future__ import annotations

from headwater.settings.model import Settings


def check_parts(settings: Settings) -> list[str]:
    """Read profiles and rules as the node will; one line for each. Raises UserError naming file, line and key."""
    from devices.profile_files import read_profiles
    from gateway.ingest.mqtt.access import AccessList

    if settings.mqtt is not None:
        AccessList(settings.mqtt.acl)
    lines = [f"decodes {profile.name} ({profile.format})" for profile in read_profiles(settings.profiles)]
    if settings.rules:
        from processors.rules import load_rules

        rules = load_rules(settings.rules)
        lines += [f"computes window {rule.name} over {rule.topic}" for rule in rules.windows]
        place = settings.processors.place
        lines += [
            f"watches alert {rule.name}"
            if rule.runs == place
            else f"leaves alert {rule.name} to nodes in the place “{rule.runs}” (its key runs; here it is “{place}”)"
            for rule in rules.alerts
        ]
    return lines
