"""`headwater init`: a node's first configuration, written without a question."""

from __future__ import annotations

import os
import re
import socket
import sys

from headwater import resources
from headwater.errors import UserError
from headwater.settings.load import fit_node_name

_MACHINE_ID = "/etc/machine-id"


def init_node(role: str, folder: str, node: str) -> None:
    """Write `<folder>/headwater.toml` and print the next steps; raises UserError when that would overwrite a file."""
    if role not in ("edge", "central"):
        raise UserError(f"“{role}” is neither edge nor central", hint="Write `headwater init edge` beside the devices.")
    if node and not fit_node_name(node):
        raise UserError(
            f"“{node}” cannot name a node",
            hint="Letters, digits, “.”, “_” and “-”; not raspberrypi or localhost: nodes are told apart by name.",
        )
    path = os.path.join(folder, "headwater.toml")
    name = node or suggest_name(role, socket.gethostname())
    text = resources.read_config(f"{role}.toml")
    text = re.sub(r'^node = ".*"', f'node = "{name}"', text, count=1, flags=re.MULTILINE)
    try:
        os.makedirs(folder, exist_ok=True)
        with open(path, "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        hint = "Edit it, or write another with --dir DIR. `headwater config check` says whether it is good."
        raise UserError(f"{path} is there already", hint=hint) from None
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}", hint="Name another folder with --dir.") from None
    sys.stdout.write(_next_steps(role, name, path, folder))


def suggest_name(role: str, host_name: str) -> str:
    """The host name where it can name a node, else the role and four digits that are this machine's own."""
    host = host_name.split(".")[0]
    if fit_node_name(host):
        return host
    try:
        with open(_MACHINE_ID, encoding="ascii") as file:
            own = file.read().strip()[:4]
    except OSError:
        own = ""
    return f"{role}-{own or os.urandom(2).hex()}"


def _next_steps(role: str, name: str, path: str, folder: str) -> str:
    option = "" if os.path.abspath(folder) == os.getcwd() else f" --config {path}"
    lines = [f"Wrote {path} for the {role} node “{name}”. Next:", ""]
    steps = [(f"headwater run{option}", "start the node; Ctrl-C ends it")]
    if role == "edge":
        steps.append(("mosquitto_pub -t shed/pump1/temperature -m 21.5", "send a first reading (in another terminal)"))
        steps.append((f"headwater tail{option}", "see readings as they come"))
    else:
        steps.append(("docs/security.md", "let edges on other machines in: a certificate each, a [[kafka.listeners]]"))
    steps.append((f"headwater status{option}", "is all well?"))
    steps.append(("http://127.0.0.1:8080/", "the node's page"))
    width = max(len(step) for step, _ in steps)
    lines += [f"  {step:{width}}   {meaning}" for step, meaning in steps]
    return "\n".join(lines) + "\n"
