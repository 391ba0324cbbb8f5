"""How a network comes up: in stages, each of which returns the next one.

What a stage needs, the one before it has made, so nothing is ever half there. `Machine` has certificates, and can start
processes. `Fabric` has Mininet's hosts, switches and links. `Services` has what the network needs beside its nodes:
shared database, controller, delay line. The last one is the running network, `testbed.network.emulation.Emulation`.
Whatever a stage starts it also pushes on `down`, an ExitStack, in the order in which it is to be undone; so a network
that came up half way is taken down like any other one.

What runs where: a node and its datacenter's applications on each datacenter's host, the controller on `ctl`, the shared
database on `db`; switches, forwarder, QC emulators and this process in the root namespace of the run.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from testbed.database.postgres import ClusterError
from testbed.errors import UserError
from testbed.machine.processes import ProcessFailed
from testbed.machine.run_directory import RunDirectory
from testbed.network.emulation import Emulation
from testbed.planning.plan import Plan
from testbed.stages.build import build
from testbed.stages.populate import populate
from testbed.stages.prepare import Wishes, prepare
from testbed.stages.serve import serve


def bring_up(
    plan: Plan, run: RunDirectory, wishes: Wishes, *, outside: int, say: Callable[[str], None],
    down: contextlib.ExitStack,
) -> Emulation:  # fmt: skip
    """The network of `plan` in run directory `run`, up; UserError if something does not come up.

    `outside` is the machine's own network namespace. Closing `down` takes down whatever is up.
    """
    try:
        return populate(serve(build(prepare(plan, run, wishes, outside=outside, say=say, down=down))))
    except (ProcessFailed, ClusterError) as error:
        raise UserError(str(error)) from None
