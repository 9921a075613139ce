"""Classes from a Python file of the user's: no worker can import it, so it travels with the stages."""

from __future__ import annotations

import sys

# How modules are named that were made of such a file.
OWN_MODULE = "interavatar_own_"


def send_by_value() -> None:
    """Pickle what is defined in such modules whole, and not by its name."""
    from ray import cloudpickle

    for name, module in list(sys.modules.items()):
        if name.startswith(OWN_MODULE):
            cloudpickle.register_pickle_by_value(module)
