"""What an audit asks of the keys of tunnels: that they came from the network, and each was that of one tunnel alone."""

from __future__ import annotations

from collections.abc import Iterator

from decisions.tunnels import KEY_BITS, lapse_s
from testbed.audit.case import Case
from testbed.audit.keys import unmade
from testbed.audit.told import DEC, ENC, MASTER, SLAVE
from testbed.audit.tunnels.told import Gateway, Turn

# So much later than it has to an end may let go of a key, or follow the other end: a busy machine is late.
_LATE_S = 15.0
_KINDS = {MASTER: ENC, SLAVE: DEC}


def got(case: Case) -> Iterator[str]:
    """What gateways got: keys made for them, as their nodes tell, the same at both ends, each under one ID."""
    ids = {mine.fingerprint: key_id for got in case.told.got.values() for key_id, mine in got.items()}
    for gateway in case.gateways.values():
        node = case.nodes.get(gateway.node)
        for key_id, mine in gateway.got.items():
            if ids.setdefault(mine.fingerprint, key_id) != key_id:
                yield f"keys {ids[mine.fingerprint]} and {key_id} are the same key"
            if mine.size_bits != KEY_BITS:
                yield f"key {key_id}: {gateway.where} got {mine.size_bits} bits, and a tunnel takes {KEY_BITS}"
            key = case.keys.get(key_id)
            if key is None:
                yield f"key {key_id}: {gateway.where} got it, and nothing was allocated for it"
                continue
            saes = {MASTER: key.master_sae, SLAVE: key.slave_sae}
            if saes.get(mine.side) != gateway.sae:
                yield f"key {key_id}: {gateway.where} got it as its {mine.side}, whom it was not made for"
                continue
            yield from unmade(case, key, mine.side)
            taken = case.taken_at(gateway.node, key.request)
            if node and key_id not in node.handed_out[_KINDS[mine.side]] and not node.lives.unwritten(taken, mine.mono):
                yield f"key {key_id}: {gateway.where} got it, and node {gateway.node} does not tell of it"
            other = _other(case, gateway, key_id)
            theirs = None if other is None else other.got.get(key_id)
            if theirs is not None and theirs.fingerprint != mine.fingerprint and mine.side == MASTER:
                yield f"key {key_id}: the two ends of a tunnel got different keys"
            if mine.side == SLAVE and theirs is None and not (other and other.may_lack(MASTER, mine.trace, mine.mono)):
                yield f"key {key_id}: {gateway.where} got it from the other end, whose journal has no such key"


def received(case: Case) -> Iterator[str]:
    """What nodes handed out to gateways is what these got, or say that they asked for in vain."""
    for gateway in case.gateways.values():
        node = case.nodes.get(gateway.node)
        for side, kind in _KINDS.items():
            for key_id, out in (node.handed_out[kind] if node else {}).items():
                if out.pair[(MASTER, SLAVE).index(side)] != gateway.sae or key_id in gateway.got:
                    continue
                if node and key_id not in node.untaken and not gateway.may_lack(side, out.trace, out.mono):
                    yield f"key {key_id}: node {node.name} handed it out ({kind}), and {gateway.where} does not have it"


def turned(case: Case) -> Iterator[str]:
    """A tunnel goes by keys that both its ends got for it, each once; the end that leads goes first."""
    tunnels: dict[str, frozenset[str]] = {}
    for gateway in case.gateways.values():
        for turn in gateway.turns:
            ends, where = frozenset((gateway.node, turn.peer)), f"key {turn.key_id}: {gateway.where}"
            if tunnels.setdefault(turn.key_id, ends) != ends:
                yield f"key {turn.key_id}: two tunnels go by it, of {_and(tunnels[turn.key_id])} and of {_and(ends)}"
            mine = gateway.got.get(turn.key_id)
            if mine is None or mine.mono > turn.mono:
                yield f"{where} has a tunnel go by it that it did not get from its node"
                continue
            other = _other(case, gateway, turn.key_id)
            if other is None or other.node != turn.peer:
                yield f"{where} has the tunnel to {turn.peer} go by it, which it was not made for"
            elif turn.key_id not in other.got and not other.lives.unwritten(mine.mono, turn.mono):
                yield f"{where} has a tunnel go by it that {other.where} does not have"
            elif mine.side == SLAVE:
                yield from _followed(where, turn, other)
        for key_id, times in _counted(gateway).items():
            if times > 1:
                yield f"key {key_id}: {gateway.where} has a tunnel go by it {times} times"


def lapsed(case: Case) -> Iterator[str]:
    """No end goes by a key for longer than it may, unless it holds it on purpose or has ended."""
    for gateway in case.gateways.values():
        for turn in gateway.turns:
            until = min(turn.until, gateway.lives.end_of(turn.mono))
            if not turn.is_held and until - turn.mono > lapse_s(turn.every_s) + _LATE_S:
                age = f"{until - turn.mono:.1f} s, and may {lapse_s(turn.every_s):g} s"
                yield f"key {turn.key_id}: {gateway.where} has a tunnel go by it for {age}"


def _followed(where: str, turn: Turn, leading: Gateway) -> Iterator[str]:
    """Who leads has turned to the key before, not long before, and on the same terms."""
    first = next((first for first in leading.turns if first.key_id == turn.key_id), None)
    if first is None:
        if not leading.lives.unwritten(turn.mono):
            yield f"{where} has a tunnel go by it, and {leading.where}, which leads, does not"
        return
    if not first.mono <= turn.mono <= first.mono + lapse_s(turn.every_s) + _LATE_S:
        yield f"{where} has a tunnel go by it {turn.mono - first.mono:.1f} s after {leading.where}, which leads"
    if (first.kind, first.every_s) != (turn.kind, turn.every_s):
        yield f"{where} has a tunnel go by it on other terms than {leading.where}"


def _other(case: Case, gateway: Gateway, key_id: str) -> Gateway | None:
    """The gateway at the other end, as the shared database has the key's SAEs."""
    key = case.keys.get(key_id)
    saes = set() if key is None else {key.master_sae, key.slave_sae} - {gateway.sae}
    return next((other for other in case.gateways.values() if other.sae in saes), None)


def _counted(gateway: Gateway) -> dict[str, int]:
    found: dict[str, int] = {}
    for turn in gateway.turns:
        found[turn.key_id] = found.get(turn.key_id, 0) + 1
    return found


def _and(nodes: frozenset[str]) -> str:
    return " and ".join(sorted(nodes))
