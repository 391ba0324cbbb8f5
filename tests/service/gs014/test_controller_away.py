"""Key sessions that are open need no controller: what runs goes on while it is killed and comes back."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from tests.support.gs014_client import Sae
from tests.support.waiting import until


def test_sessions_rekey_all_the_while_the_controller_is_killed_and_started_again(kmes, alice, bob, carol):
    """Over one hop and over two: each key comes, the same at both ends; afterwards the sessions are what they were."""
    exchanged: Counter[str] = Counter()
    over = threading.Event()

    def rekey(slave: Sae) -> None:
        while not over.is_set():
            given = alice.get(slave.id)
            assert given.status == 200, given.body
            assert slave.fetch(alice.id, *given.ids).keys == given.keys
            exchanged[slave.id] += 1

    def sessions() -> list[dict]:
        found = kmes.controller("GET", "key_sessions")["key_sessions"]
        return [s for s in found if s["master_sae"] == alice.id and s["slave_sae"] in (bob.id, carol.id)]

    for slave in (bob, carol):
        until(lambda s=slave: alice.get(s.id).status == 200)
    before = sessions()
    assert [s["state"] for s in before] == ["open", "open"]
    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(rekey, slave) for slave in (bob, carol)]

        def five_more() -> None:
            wanted = {sae: exchanged[sae] + 5 for sae in (bob.id, carol.id)}
            until(lambda: any(r.done() for r in running) or all(exchanged[s] >= n for s, n in wanted.items()))

        try:
            five_more()
            kmes.kill_controller()
            try:
                five_more()
            finally:
                kmes.start_controller()
            until(lambda: all(a["reachable"] for a in kmes.controller("GET", "agents")["agents"]))
            five_more()
        finally:
            over.set()
        for done in running:
            done.result(30)
    assert sessions() == before
