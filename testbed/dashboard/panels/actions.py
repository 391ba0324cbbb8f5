"""What a viewer can do to the network, a node, a link or a session: buttons and fields, for the details of each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nicegui import ui

from scenario.shape import MAX_DELAY_MS, Shape
from scenario.topology import Link, Qc
from testbed.dashboard.operator import Operator
from testbed.dashboard.widgets import Tag, button, number
from testbed.network.faults import CONTROLLER, CUT, DATABASE, NODE
from testbed.operation.desk import rate_of


def of_network(operator: Operator) -> None:
    """Kill and restart what all nodes depend on; heal everything."""
    with Tag("div", "", "form"):
        button("Kill the controller", _break(operator, CONTROLLER))
        button("Start it again", _heal(operator, CONTROLLER)).props('aria-label="Start the controller again"')
    with Tag("div", "", "form"):
        button("Kill the shared database", _break(operator, DATABASE))
        button("Start it again", _heal(operator, DATABASE)).props('aria-label="Start the shared database again"')
    with Tag("div", "", "form"):
        button("Heal everything", _heal(operator))


def of_node(operator: Operator, node: str) -> None:
    """Kill it and start it again."""
    with Tag("div", "", "form"):
        button("Kill node", _break(operator, NODE, node), strong=True)
        button("Start node again", _heal(operator, NODE, node))


def of_link(operator: Operator, link: Link) -> None:
    """Cut and heal it, shape it, set its QCs."""
    with Tag("div", "", "form"):
        button("Cut link", _break(operator, CUT, link.a, link.b), strong=True)
        button("Heal link", _heal(operator, CUT, link.a, link.b))
    _shape(operator, link)
    for qc in link.qcs:
        _qc(operator, qc)


def of_session(operator: Operator, ksid: str, tell: Callable[[str], Any]) -> None:
    """Tell how it was opened; close it."""
    desk = operator.desk
    with Tag("div", "", "form"):
        button(
            "Close session", lambda: operator.do(lambda: desk.close(ksid), lambda _: f"session {ksid} is closed"),
            strong=True,
        )  # fmt: skip
        button("Tell its story", lambda: tell(ksid))


def _break(operator: Operator, kind: str, *where: str) -> Callable[[], Any]:
    faults = operator.desk.faults
    return lambda: operator.do(lambda: faults.inject(kind, *where), lambda fault: f"broken: {fault.name}")


def _heal(operator: Operator, *what: str) -> Callable[[], Any]:
    faults = operator.desk.faults
    return lambda: operator.do(
        lambda: faults.heal(*what), lambda done: f"healed: {', '.join(f.name for f in done) or 'nothing was broken'}"
    )


def _shape(operator: Operator, link: Link) -> None:
    fibres = operator.desk.fibres
    now = fibres.get(link.name).a_to_b
    with Tag("div", "", "form"):
        delay = number("Delay in ms, one way", 0, MAX_DELAY_MS, step=0.001)
        jitter = number("Jitter in ms", 0, MAX_DELAY_MS, step=0.001)
        loss = number("Loss in percent", 0, 100, step=0.1)

        def fill(shape: Shape) -> None:
            delay.value, jitter.value, loss.value = shape.delay_ms, shape.jitter_ms, shape.loss_percent

        async def change() -> None:
            changes = {"delay_ms": delay.value, "jitter_ms": jitter.value, "loss_percent": loss.value}
            await operator.do(lambda: fibres.change(link.name, changes), lambda f: f"{f.name} is shaped anew")

        async def reset() -> None:
            done = await operator.do(lambda: fibres.reset(link.name), lambda f: f"{f.name} is shaped as planned")
            if done is not None:
                fill(done.a_to_b)

        fill(now)
        button("Set delay, jitter, loss", change)
        button("As planned", reset)


def _qc(operator: Operator, qc: Qc) -> None:
    desk = operator.desk
    with Tag("div", "", "form"):
        field = ui.input(
            f"Rate of {qc.name}, LOW-HIGH in bytes a second", value=f"{qc.low_bytes_per_slot}-{qc.high_bytes_per_slot}"
        )
        field.props("outlined dense").classes("field wide")

        def set_rate() -> str:
            return desk.set_rate(qc.name, *rate_of(field.value))

        button("Set rate", lambda: operator.do(set_rate, str))
    with Tag("div", "", "form"):
        button("Stop generating", lambda: _generate(operator, qc.name, enabled=False))
        button("Generate", lambda: _generate(operator, qc.name, enabled=True))


async def _generate(operator: Operator, qc: str, *, enabled: bool) -> None:
    await operator.do(lambda: operator.desk.set_generation(qc, enabled=enabled), str)
