"""Every way to falsify the records of a run is found: one a case, in a clean run, with words of the finding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from testbed.audit.evidence import Unreadable
from tests.support.played_run import played, verdict

Run = dict[str, Any]


def account(run: Run, node: str) -> dict[str, Any]:
    """What that node's local database says."""
    return run["records"]["nodes"][node]


def stream(run: Run, node: str, epoch: int = 7) -> dict[str, Any]:
    """The balance of the stream of that epoch at a node: 7 is a-b/1's, 8 and 9 are b-c/1's."""
    return next(s for s in account(run, node)["streams"] if s["epoch"] == epoch)


def block(run: Run, sequence: int, epoch: int = 7) -> dict[str, Any]:
    """The event of a block."""
    return next(e for e in run["qcs"] if e["event"] == "block" and (e["sequence"], e["epoch"]) == (sequence, epoch))


def event(run: Run, journal: str, node: str, name: str, **facts: Any) -> dict[str, Any]:
    """The first event of that name, and with these facts, in a node's or its applications' journal."""
    return next(e for e in run[journal][node] if e["event"] == name and facts.items() <= e.items())


def allocation(run: Run, hops: int, number: int = 0) -> list[list[Any]]:
    """The rows of an allocation over so many hops, the first one or a later one."""
    by_request: dict[str, list[list[Any]]] = {}
    for row in run["records"]["allocations"]:
        by_request.setdefault(row[0], []).append(row)
    return [rows for rows in by_request.values() if len(rows) == hops][number]


def takes(run: Run, node: str, request: str) -> list[list[Any]]:
    """What a node took for an allocation."""
    return [take for take in account(run, node)["taken"] if take[6] == request]


def keys(run: Run, request: str) -> list[list[Any]]:
    """The keys of an allocation."""
    return [key for key in run["records"]["keys"] if key[1] == request]


def balance(run: Run, node: str, **changes: int) -> None:
    """Change members of the balance of a-b/1 at a node by so much."""
    found = stream(run, node)
    for name, n_bytes in changes.items():
        found[name] += n_bytes


def crash_of_qcs(run: Run) -> None:
    """The QC emulators are killed in their last slot, and c lacks what they made for it in the last 20 s."""
    run["qcs"].pop()
    run["run"].append({"event": "killed", "process": "qcs", "mono": 70.0})
    found, lost = stream(run, "c", 9), block(run, 10, 9)["offset"]
    n_bytes, found["head"] = found["head"] - lost, lost
    found["generated"] = lost
    found["expired"], found["stored"] = found["expired"] + found["stored"] - n_bytes, 0


def drop(run: Run, journal: str, node: str, name: str, **facts: Any) -> None:
    """Have an event never been written."""
    run[journal][node].remove(event(run, journal, node, name, **facts))


# -- what the run was meant to be, and what is there at all


def no_node(run: Run) -> None:
    del run["records"]["nodes"]["c"]


def no_node_with_reason(run: Run) -> None:
    del run["records"]["nodes"]["c"]
    run["records"]["lacking"]["c"] = "its database is no database"


def node_too_many(run: Run) -> None:
    run["records"]["nodes"]["d"] = {"streams": [], "taken": []}


def account_of_another(run: Run) -> None:
    run["records"]["nodes"]["a"] = account(run, "c")


def empty_records(run: Run) -> None:
    run["records"] = {}


def empty_account(run: Run) -> None:
    run["records"]["nodes"]["b"] = {"streams": [], "taken": []}


def account_without_takes(run: Run) -> None:
    del account(run, "b")["taken"]


def all_accounts_empty(run: Run) -> None:
    for node in "abc":
        run["records"]["nodes"][node] = {"streams": [], "taken": []}
    run["records"]["allocations"] = run["records"]["keys"] = []


def no_stream(run: Run) -> None:
    account(run, "c")["streams"].remove(stream(run, "c", 8))
    account(run, "c")["streams"].remove(stream(run, "c", 9))


def no_epoch(run: Run) -> None:
    account(run, "b")["streams"].remove(stream(run, "b", 9))


def stream_twice(run: Run) -> None:
    account(run, "a")["streams"].append(dict(stream(run, "a")))


def stream_of_others(run: Run) -> None:
    account(run, "c")["streams"].append(dict(stream(run, "b")))


def stream_of_no_epoch(run: Run) -> None:
    account(run, "a")["streams"].append(stream(run, "a") | {"epoch": 70})


def no_allocations(run: Run) -> None:
    run["records"]["allocations"] = []


def no_keys(run: Run) -> None:
    run["records"]["keys"] = []


def no_qc_journal(run: Run) -> None:
    run["qcs"] = None


def empty_qc_journal(run: Run) -> None:
    run["qcs"] = []


def no_controller_journal(run: Run) -> None:
    run["controller"] = None


def no_node_journal(run: Run) -> None:
    run["nodes"]["b"] = None


def no_application_journal(run: Run) -> None:
    run["saes"]["b"] = None


def empty_application_journal(run: Run) -> None:
    run["saes"]["b"] = []


def journal_without_room(run: Run) -> None:
    run["saes"]["c"].insert(-1, {"event": "events_lost", "number": 3, "mono": 60.0})


def application_of_another_name(run: Run) -> None:
    event(run, "saes", "b", "started")["saes"] = {"sae-x": "x"}


# -- what the QCs made


def block_missing(run: Run) -> None:
    run["qcs"].remove(block(run, 30))


def first_block_missing(run: Run) -> None:
    run["qcs"].remove(block(run, 0))


def last_blocks_missing(run: Run) -> None:
    run["qcs"] = [e for e in run["qcs"] if e["event"] != "block" or e["mono"] < 60]


def block_doubled(run: Run) -> None:
    run["qcs"].insert(run["qcs"].index(block(run, 30)), dict(block(run, 30)))


def block_longer(run: Run) -> None:
    block(run, 30)["n_bytes"] += 1


def last_block_longer(run: Run) -> None:
    block(run, 29, 9)["n_bytes"] += 1


def block_of_negative_length(run: Run) -> None:
    block(run, 30)["n_bytes"] = -400


def block_elsewhere(run: Run) -> None:
    block(run, 30)["offset"] += 400


def block_of_another_epoch(run: Run) -> None:
    block(run, 30)["epoch"] = 9


def block_of_unknown_qc(run: Run) -> None:
    block(run, 30)["qc"] = "x-y/1"


def blocks_swapped(run: Run) -> None:
    i, j = run["qcs"].index(block(run, 30)), run["qcs"].index(block(run, 31))
    run["qcs"][i], run["qcs"][j] = run["qcs"][j], run["qcs"][i]


def block_backwards_in_time(run: Run) -> None:
    block(run, 30)["made"] -= 5


def block_made_later(run: Run) -> None:
    for sequence in range(5, 70):
        block(run, sequence)["made"] += 60


def qc_without_blocks(run: Run) -> None:
    run["qcs"] = [e for e in run["qcs"] if e.get("qc") != "b-c/1"]


def old_epoch_again(run: Run) -> None:
    run["qcs"].insert(-1, block(run, 39, 8) | {"sequence": 40, "slot": 41, "offset": 14400, "made": 5069.9})


# -- what came to the ends


def one_loss_excuses_all(run: Run) -> None:
    balance(run, "a", generated=-400, expired=-400)


def loss_not_told(run: Run) -> None:
    run["qcs"] = [e for e in run["qcs"] if e["event"] != "block_lost"]


def loss_at_the_other_end(run: Run) -> None:
    next(e for e in run["qcs"] if e["event"] == "block_lost")["end"] = "b"


def loss_at_neither_end(run: Run) -> None:
    next(e for e in run["qcs"] if e["event"] == "block_lost")["end"] = "c"


def older_blocks_never_came(run: Run) -> None:
    """The device was started anew since, and nobody says that they were lost."""
    found = stream(run, "c", 8)
    for name in ("head", "generated", "expired"):
        found[name] -= 4 * 400


def older_blocks_never_came_and_no_end_is_told(run: Run) -> None:
    older_blocks_never_came(run)
    run["qcs"].pop()


def blocks_never_came_long_before_a_crash(run: Run) -> None:
    """Of the device, at whose end 20 s before somebody was awake."""
    crash_of_qcs(run)


def loss_twice(run: Run) -> None:
    lost = next(e for e in run["qcs"] if e["event"] == "block_lost")
    run["qcs"].insert(-1, dict(lost))


def loss_of_no_block(run: Run) -> None:
    next(e for e in run["qcs"] if e["event"] == "block_lost")["sequence"] = 700


def more_bytes_than_made(run: Run) -> None:
    balance(run, "a", head=400, generated=400, stored=400)


def fewer_bytes_than_made(run: Run) -> None:
    balance(run, "a", head=-400, generated=-400, stored=-400)


def differing_at_a_node_that_crashed(run: Run) -> None:
    """More than the one block of which it may not have come to tell."""
    balance(run, "b", differing=4000, expired=-4000)


def head_in_a_block(run: Run) -> None:
    balance(run, "b", head=-5, generated=-5, stored=-5)


def bytes_from_nowhere(run: Run) -> None:
    balance(run, "a", generated=40, stored=40)


def bytes_to_nowhere(run: Run) -> None:
    balance(run, "a", stored=-40)


def bytes_called_differing(run: Run) -> None:
    balance(run, "a", differing=40, expired=-40)


def negative_bytes(run: Run) -> None:
    expired = stream(run, "a")["expired"]
    balance(run, "a", expired=-expired - 8, stored=expired + 8)


def balance_not_whole(run: Run) -> None:
    stream(run, "a")["used"] += 0.5


# -- what was allocated


def allocated_twice(run: Run) -> None:
    first, second = allocation(run, 1)[0], allocation(run, 1, 1)[0]
    second[4], second[5] = first[4], first[4] + second[5] - second[4]


def allocated_and_never_made(run: Run) -> None:
    allocation(run, 1)[0][5] += 100_000


def allocated_of_another_epoch(run: Run) -> None:
    allocation(run, 1)[0][3] = 70


def allocated_backwards(run: Run) -> None:
    row = allocation(run, 1)[0]
    row[4], row[5] = row[5], row[4]


def allocated_of_nothing(run: Run) -> None:
    row = allocation(run, 1)[0]
    row[5] = row[4]


def allocated_what_one_end_lacks(run: Run) -> None:
    """Block 18 of a-b/1 never came to a."""
    row = allocation(run, 1)[0]
    n_bytes, row[4] = row[5] - row[4], block(run, 18)["offset"]
    row[5] = row[4] + n_bytes


def allocation_without_a_link(run: Run) -> None:
    run["records"]["allocations"].remove(allocation(run, 2)[1])


def allocation_without_the_first_link(run: Run) -> None:
    run["records"]["allocations"].remove(allocation(run, 2)[0])


def allocation_of_another_node(run: Run) -> None:
    allocation(run, 1)[0][6] = "b"


def allocation_of_two_nodes(run: Run) -> None:
    allocation(run, 2)[1][6] = "b"


def allocation_on_a_qc_of_others(run: Run) -> None:
    allocation(run, 1)[0][2] = "b-c/1"


def allocation_in_a_circle(run: Run) -> None:
    allocation(run, 2)[1][2] = "a-b/1"


def allocation_untold_long_after_a_crash(run: Run) -> None:
    start = block(run, 48)["offset"]
    run["records"]["allocations"].append(["late", 1, "a-b/1", 7, start, start + 16, "b"])
    run["records"]["keys"].append(["key of it", "late", "sae-b", "sae-a"])


def allocation_untold_before_another_one(run: Run) -> None:
    """By the order of the stream it was given before one that was taken long before the crash."""
    start = block(run, 1)["offset"]
    run["records"]["allocations"].append(["early", 1, "a-b/1", 7, start, start + 16, "b"])
    run["records"]["keys"].append(["key of it", "early", "sae-b", "sae-a"])


def allocations_untold_by_a_node_that_crashed(run: Run) -> None:
    run["nodes"]["b"] = [e for e in run["nodes"]["b"] if e["event"] != "statement"]


def allocation_untold_that_its_node_used(run: Run) -> None:
    drop(run, "nodes", "a", "statement", allocation=allocation(run, 1)[0][0])


def allocation_that_was_refused(run: Run) -> None:
    """The node was told that the QC is short of bytes, and they were given to it all the same."""
    lost = event(run, "nodes", "a", "lost", cause="relay_broken")
    run["nodes"]["a"].remove(lost)
    asked = event(run, "nodes", "a", "statement", allocation=lost["allocation"])
    del asked["ranges"]
    asked["short_bytes"] = 16


def allocation_for_nobody(run: Run) -> None:
    run["records"]["allocations"].append(["nobody", 1, "a-b/1", 7, 100, 116, "a"])


def allocation_forgotten(run: Run) -> None:
    for row in allocation(run, 2):
        run["records"]["allocations"].remove(row)


def allocation_dearer_than_its_keys(run: Run) -> None:
    """One key for the price of four."""
    for key in keys(run, allocation(run, 1, 1)[0][0])[1:]:
        run["records"]["keys"].remove(key)


def allocation_told_otherwise(run: Run) -> None:
    request = allocation(run, 2)[0][0]
    event(run, "nodes", "a", "statement", allocation=request)["ranges"][0][1] += 1


def allocation_asked_for_twice(run: Run) -> None:
    """The second time in place of another."""
    first = event(run, "nodes", "a", "statement")
    event(run, "nodes", "a", "statement", ksid="own-a own-c")["allocation"] = first["allocation"]


# -- what was taken


def taken_twice(run: Run) -> None:
    take = takes(run, "a", allocation(run, 1)[0][0])[0]
    account(run, "a")["taken"].append([*take[:5], account(run, "a")["taken"][-1][5], take[6]])
    balance(run, "a", used=16, expired=-16)


def taken_for_another(run: Run) -> None:
    takes(run, "a", allocation(run, 1)[0][0])[0][6] = allocation(run, 1, 1)[0][0]


def taken_without_allocation(run: Run) -> None:
    last = account(run, "a")["taken"][-1]
    start = last[3] + 8
    account(run, "a")["taken"].append(["a-b/1", 7, start, start + 16, last[4], last[5], "nobody"])
    balance(run, "a", used=16, expired=-16)


def taken_from_another_epoch(run: Run) -> None:
    takes(run, "c", allocation(run, 2)[0][0])[0][1] = 9


def taken_on_a_qc_of_others(run: Run) -> None:
    """With all that goes with it, at the node of neither end."""
    take = takes(run, "b", allocation(run, 2)[0][0])[0]
    account(run, "c")["taken"].insert(0, list(take))
    n_bytes = take[3] - take[2]
    account(run, "c")["streams"].append({"qc": "a-b/1", "epoch": 7, "head": 400, "generated": 400, "used": n_bytes,
                                         "expired": 400 - n_bytes, "stored": 0, "differing": 0})  # fmt: skip


def taken_backwards(run: Run) -> None:
    take = takes(run, "a", allocation(run, 1)[0][0])[0]
    take[2], take[3] = take[3], take[2]


def taken_of_negative_length(run: Run) -> None:
    takes(run, "a", allocation(run, 1)[0][0])[0][3] = -1


def taken_of_no_length(run: Run) -> None:
    last = account(run, "a")["taken"][-1]
    account(run, "a")["taken"].append([*last[:3], last[2], *last[4:]])


def taken_before_it_was_made(run: Run) -> None:
    account(run, "a")["taken"][0][5] = 4000.0


def taken_when_too_old(run: Run) -> None:
    """Key by the key's node's own word it was young."""
    last = account(run, "b")["taken"][-1]
    last[4], last[5] = last[5] - 1.0, last[5] + 30.0


def taken_when_too_old_for_a_smaller_ttl(run: Run) -> None:
    run["records"]["meant"]["ttl_slots"] = 2


def taken_out_of_order(run: Run) -> None:
    account(run, "a")["taken"].reverse()


def taken_by_one_end_only(run: Run) -> None:
    """The slave's node never took the key that its SAE got."""
    for take in takes(run, "b", request := allocation(run, 1)[0][0]):
        account(run, "b")["taken"].remove(take)
        balance(run, "b", used=take[2] - take[3], expired=take[3] - take[2])
    drop(run, "nodes", "b", "used", allocation=request)


def take_not_told(run: Run) -> None:
    """Gone from the account, with its bytes counted as expired: the node's own journal still knows."""
    request = allocation(run, 2, 3)[0][0]
    for take in takes(run, "a", request):
        account(run, "a")["taken"].remove(take)
        balance(run, "a", used=take[2] - take[3], expired=take[3] - take[2])


def use_not_told(run: Run) -> None:
    drop(run, "nodes", "c", "used", allocation=allocation(run, 2)[0][0])


def half_taken(run: Run) -> None:
    take = takes(run, "a", allocation(run, 1)[0][0])[0]
    take[3] -= 8
    balance(run, "a", used=-8, expired=8)


def different_halves_taken(run: Run) -> None:
    """Each end counts right; the bytes are not the same."""
    request = allocation(run, 2)[0][0]
    for node, first in (("a", True), ("b", False)):
        for take in takes(run, node, request):
            if take[0] == "a-b/1":
                middle = (take[2] + take[3]) // 2
                n_bytes = (take[3] - take[2]) // 2
                take[2], take[3] = (take[2], middle) if first else (middle, take[3])
                balance(run, node, used=-n_bytes, expired=n_bytes)


def slave_took_between_two_keys(run: Run) -> None:
    take = takes(run, "a", allocation(run, 1, 1)[0][0])[0]
    take[2], take[3] = take[2] + 8, take[3] + 8


def relay_never_took(run: Run) -> None:
    """What went on to c cannot have come from b."""
    request = allocation(run, 2)[0][0]
    for take in takes(run, "b", request):
        account(run, "b")["taken"].remove(take)
        stream(run, "b", take[1])["used"] -= take[3] - take[2]
        stream(run, "b", take[1])["expired"] += take[3] - take[2]
    drop(run, "nodes", "b", "used", allocation=request)


def chain_that_left_out_a_relay(run: Run) -> None:
    """What c took without b having taken anything was not relayed at once, as it now says."""
    event(run, "nodes", "a", "statement", at_once=True)["at_once"] = False


def relay_at_once_took_one_pad(run: Run) -> None:
    """Of what is relayed at once, too, a node takes both pads."""
    event(run, "nodes", "a", "statement", allocation=(request := allocation(run, 2)[0][0]))["at_once"] = True
    (taken,) = [take for take in takes(run, "b", request) if take[0] == "a-b/1"]
    account(run, "b")["taken"].remove(taken)
    stream(run, "b", taken[1])["used"] -= taken[3] - taken[2]
    stream(run, "b", taken[1])["expired"] += taken[3] - taken[2]


def key_taken_as_pad(run: Run) -> None:
    event(run, "nodes", "a", "used", allocation=allocation(run, 1)[0][0])["ranges"][0][3] = "pad"


def pad_taken_as_key(run: Run) -> None:
    event(run, "nodes", "b", "used", allocation=allocation(run, 2)[0][0])["ranges"][0][3] = "key"


# -- the keys


def pair_differs(run: Run) -> None:
    event(run, "saes", "a", "key")["fingerprint"] = "mark of another"


def two_ids_for_one_key(run: Run) -> None:
    mark = event(run, "saes", "a", "key", side="master")["fingerprint"]
    for node, side in (("b", "master"), ("a", "slave")):
        event(run, "saes", node, "key", side=side)["fingerprint"] = mark


def key_fetched_twice_by_the_slave(run: Run) -> None:
    run["saes"]["b"].append(dict(event(run, "saes", "b", "key", side="slave")))


def key_fetched_twice_by_the_master(run: Run) -> None:
    run["saes"]["a"].append(dict(event(run, "saes", "a", "key", side="master")))


def key_handed_out_twice(run: Run) -> None:
    """To a client that leaves no journal."""
    run["nodes"]["c"].append(dict(event(run, "nodes", "c", "key_delivered", master_sae="own-a")))


def key_of_one_master_handed_to_another(run: Run) -> None:
    event(run, "nodes", "a", "key_delivered", master_sae="own-a")["master_sae"] = "sae-a"


def key_handed_out_when_too_old(run: Run) -> None:
    event(run, "nodes", "c", "key_delivered", master_sae="own-a")["mono"] += 30


def key_handed_out_elsewhere(run: Run) -> None:
    run["nodes"]["b"].append(event(run, "nodes", "c", "key_delivered", master_sae="own-a"))
    drop(run, "nodes", "c", "key_delivered", master_sae="own-a")


def key_handed_out_that_nobody_allocated(run: Run) -> None:
    run["nodes"]["a"].append(event(run, "nodes", "a", "key_delivered") | {"key_ids": ["made up"]})


def pair_that_nobody_allocated(run: Run) -> None:
    for node, side in (("a", "master"), ("b", "slave")):
        run["saes"][node].append(event(run, "saes", node, "key", side=side) | {"key_id": "new", "fingerprint": "new"})


def pair_without_its_allocation(run: Run) -> None:
    request = allocation(run, 1)[0][0]
    run["records"]["keys"] = [key for key in run["records"]["keys"] if key[1] != request]


def key_of_another_pair(run: Run) -> None:
    keys(run, allocation(run, 1)[0][0])[0][3] = "sae-c"


def key_made_twice(run: Run) -> None:
    run["records"]["keys"].append([keys(run, allocation(run, 1)[0][0])[0][0], *run["records"]["keys"][-1][1:]])


def key_of_no_allocation(run: Run) -> None:
    run["records"]["keys"].append(["late", "nothing", "sae-a", "sae-b"])


def key_of_unknown_sae(run: Run) -> None:
    for key in keys(run, allocation(run, 1)[0][0]):
        key[2] = "sae-x"


def key_got_in_another_session(run: Run) -> None:
    event(run, "saes", "a", "key", side="master")["ksid"] = "sae-b sae-c"


def key_got_by_the_wrong_side(run: Run) -> None:
    event(run, "saes", "a", "key", side="master")["side"] = "slave"


def key_of_another_size(run: Run) -> None:
    event(run, "saes", "a", "key", side="master")["size_bits"] = 256


def keys_of_another_size(run: Run) -> None:
    """At both sides alike."""
    for node, side in (("a", "master"), ("b", "slave")):
        event(run, "saes", node, "key", side=side)["size_bits"] = 256


def slave_has_no_key(run: Run) -> None:
    """The master used it, so the slave had it."""
    key_id = event(run, "saes", "a", "key", side="master")["key_id"]
    run["saes"]["b"] = [e for e in run["saes"]["b"] if e.get("key_id") != key_id]


def master_has_no_key(run: Run) -> None:
    key_id = event(run, "saes", "a", "key", side="master")["key_id"]
    run["saes"]["a"] = [e for e in run["saes"]["a"] if e.get("key_id") != key_id]


def message_under_no_key(run: Run) -> None:
    drop(run, "saes", "a", "key", side="master")


def failure_of_the_master_not_told(run: Run) -> None:
    drop(run, "saes", "a", "key_error")


def session_of_two_pairs(run: Run) -> None:
    event(run, "saes", "a", "session_open")["slave_sae"] = "sae-c"


def key_not_told_by_the_node(run: Run) -> None:
    drop(run, "nodes", "c", "key_delivered", method="dec_keys", master_sae="sae-a")


def pair_without_a_journal(run: Run) -> None:
    """Both applications have forgotten it; their nodes have not."""
    key_id = event(run, "saes", "a", "key", side="master")["key_id"]
    for node in "ab":
        run["saes"][node] = [e for e in run["saes"][node] if e.get("key_id") != key_id]


# -- how processes began and ended


def no_journal_of_processes(run: Run) -> None:
    run["run"] = None


def application_journals_without_what_they_did(run: Run) -> None:
    for node in "abc":
        run["saes"][node] = [run["saes"][node][0], run["saes"][node][-1]]


def application_journals_cut_off(run: Run) -> None:
    for node in "abc":
        run["saes"][node] = run["saes"][node][:1]


def node_journals_without_what_they_did(run: Run) -> None:
    for node in "abc":
        run["nodes"][node] = [run["nodes"][node][0], run["nodes"][node][-1]]


def node_journals_cut_off(run: Run) -> None:
    for node in "abc":
        run["nodes"][node] = run["nodes"][node][:1]


def empty_node_journal(run: Run) -> None:
    run["nodes"]["b"] = []


def life_without_a_beginning(run: Run) -> None:
    drop(run, "nodes", "b", "started")


def life_without_an_end(run: Run) -> None:
    drop(run, "nodes", "b", "stopped")


def life_of_applications_without_an_end(run: Run) -> None:
    drop(run, "saes", "b", "stopped")


def life_of_the_controller_without_an_end(run: Run) -> None:
    run["controller"].pop()


def life_of_the_qcs_without_an_end(run: Run) -> None:
    run["qcs"].pop()


def death_not_told(run: Run) -> None:
    run["run"] = [e for e in run["run"] if e["event"] != "killed"]


def death_that_never_was(run: Run) -> None:
    run["run"].append({"event": "killed", "process": "node-a", "mono": 20.0})


def end_in_the_middle(run: Run) -> None:
    run["nodes"]["a"].insert(-5, {"event": "stopped", "mono": 20.0})


def life_that_the_run_did_not_begin(run: Run) -> None:
    run["run"] = [e for e in run["run"] if e["process"] != "node-a"]


def journal_cut_off_long_before_a_death(run: Run) -> None:
    """The node was killed at the end of the run, and its journal tells nothing of its work."""
    run["run"].append({"event": "killed", "process": "node-c", "mono": 72.0})
    run["nodes"]["c"] = run["nodes"]["c"][:1]


def second_life_not_told(run: Run) -> None:
    """The run began it; of its beginning and its end the journal has nothing."""
    later = next(i for i, e in enumerate(run["nodes"]["b"]) if e["event"] == "started" and e["mono"] > 0)
    del run["nodes"]["b"][later:]


# -- what was lost


def loss_of_key_material_not_told(run: Run) -> None:
    drop(run, "nodes", "a", "lost", cause="relay_broken")


def half_of_a_loss_told(run: Run) -> None:
    event(run, "nodes", "a", "lost", cause="relay_broken")["ranges"][0][2] -= 8


def loss_of_what_was_never_given(run: Run) -> None:
    event(run, "nodes", "a", "lost", cause="relay_broken")["ranges"][0][2] += 8000


def loss_of_no_key(run: Run) -> None:
    event(run, "nodes", "c", "lost", cause="expired")["ranges"][0][1] -= 8


def loss_of_a_key_that_was_handed_out(run: Run) -> None:
    lost = event(run, "nodes", "c", "lost", cause="expired")["ranges"][0]
    lost[1], lost[2] = lost[1] - 16, lost[1]


def loss_told_by_another_node(run: Run) -> None:
    run["nodes"]["a"].append(dict(event(run, "nodes", "c", "lost", cause="expired")))


def loss_of_a_key_that_its_master_got(run: Run) -> None:
    key_id = event(run, "nodes", "a", "key_delivered", method="enc_keys")["key_ids"][0]
    request = next(key[1] for key in run["records"]["keys"] if key[0] == key_id)
    ranges = [[*row[2:3], *row[4:6], "part"] for row in run["records"]["allocations"] if row[0] == request]
    facts = {"allocation": request, "cause": "answer_not_taken", "ranges": ranges, "mono": 60.0}
    run["nodes"]["a"].insert(-1, {"event": "lost", **facts})


def loss_over_two_hops_told_by_the_slaves_node(run: Run) -> None:
    """Its client has not left it: what the key cost it cannot know."""
    run["nodes"]["c"].insert(-1, {**_parts_of_a_key(run), "mono": 60.0})


def half_of_what_a_key_cost_told(run: Run) -> None:
    del _parts_of_a_key(run)["ranges"][0]


def other_parts_than_the_keys(run: Run) -> None:
    _parts_of_a_key(run)["ranges"][0][2] -= 8


def _parts_of_a_key(run: Run) -> dict[str, Any]:
    return next(e for e in run["nodes"]["a"] if e.get("cause") == "answer_not_taken" and e["ranges"])


def delivery_not_told(run: Run) -> None:
    """To a client that leaves no journal: its key might have become anything."""
    drop(run, "nodes", "a", "key_delivered", master_sae="own-a")


FALSIFICATIONS: list[tuple[Callable[[Run], None], str]] = [
    (no_node, "node c: its account is missing: nobody says why"),
    (no_node_with_reason, "node c: its account is missing: its database is no database"),
    (node_too_many, "node d: there is an account of it, but no such node"),
    (account_of_another, "node a, QC a-b/1: the stream is missing"),
    (empty_records, "audit.json: meant: expected an object"),
    (empty_account, "node b, QC a-b/1: the stream is missing"),
    (account_without_takes, "nodes.b: taken: expected an array"),
    (all_accounts_empty, "node a, QC a-b/1: the stream is missing"),
    (no_stream, "node c, QC b-c/1: the stream is missing"),
    (no_epoch, "node b, QC b-c/1: block 0 never came"),
    (stream_twice, "node a, QC a-b/1: epoch 7 is accounted for twice"),
    (stream_of_others, "node c, QC a-b/1:"),
    (stream_of_no_epoch, "bytes came of epoch 70, which was never made for it"),
    (no_allocations, "were taken for 00000000-0000-0000-0000-000000000001, which was not given them"),
    (no_keys, "given for no key"),
    (no_qc_journal, "the journal of the QC emulators is missing"),
    (empty_qc_journal, "QC a-b/1: the journal has no block of it"),
    (no_journal_of_processes, "the run: its journal of processes is missing"),
    (application_journals_without_what_they_did, "handed it out (enc_keys), and its master's journal lacks it"),
    (application_journals_cut_off, "handed it out (dec_keys), and its slave's journal lacks it"),
    (node_journals_without_what_they_did, "its journal tells of 0 bytes used for"),
    (node_journals_cut_off, "its journal tells of 0 bytes used for"),
    (empty_node_journal, "node b: the journal does not tell that it stopped, and the run did not kill it"),
    (life_without_a_beginning, "node b: the journal does not tell that it started"),
    (life_without_an_end, "node b: the journal does not tell that it stopped, and the run did not kill it"),
    (life_of_applications_without_an_end, "the applications at b: the journal does not tell that it stopped"),
    (life_of_the_controller_without_an_end, "the controller: the journal does not tell that it stopped"),
    (life_of_the_qcs_without_an_end, "the QC emulators: the journal does not tell that it stopped"),
    (death_not_told, "node b: the journal does not tell that it stopped, and the run did not kill it"),
    (death_that_never_was, "node a: the journal goes on after its end"),
    (end_in_the_middle, "node a: the journal goes on after its end"),
    (life_that_the_run_did_not_begin, "node a: the run does not tell that it started"),
    (journal_cut_off_long_before_a_death, "node c, QC b-c/1: its journal tells of 0 bytes used for"),
    (second_life_not_told, "node b: the journal does not tell that it stopped, and the run did not kill it"),
    (no_controller_journal, "the controller: its journal is missing"),
    (no_node_journal, "node b: its journal is missing"),
    (no_application_journal, "the applications at b: their journal is missing"),
    (empty_application_journal, "the applications at b: sae-b: not there, or not meant to be"),
    (journal_without_room, "the applications at c: the journal lacks 3 events, for which there was no room"),
    (application_of_another_name, "the applications at b: sae-b, sae-x: not there, or not meant to be"),
    (block_missing, "QC a-b/1: the journal tells of block 31 where block 30 must be"),
    (first_block_missing, "QC a-b/1: the journal tells of block 1 where block 0 must be"),
    (last_blocks_missing, "bytes came up to 24800, of 21200 that were made"),
    (block_doubled, "QC a-b/1: the journal tells of block 30 where block 31 must be"),
    (block_longer, "QC a-b/1: block 31 begins at byte 11200, where it must at 11201"),
    (last_block_longer, "bytes came up to"),
    (block_of_negative_length, "event block: n_bytes: expected a whole number from 0"),
    (block_elsewhere, "QC a-b/1: block 30 begins at byte 11200, where it must at 10800"),
    (block_of_another_epoch, "QC a-b/1: the journal tells of block 30 where block 0 must be"),
    (block_of_unknown_qc, "QC x-y/1: the network has none"),
    (blocks_swapped, "QC a-b/1: the journal tells of block 31 where block 30 must be"),
    (block_backwards_in_time, "QC a-b/1: block 30 was made before the one that it follows"),
    (block_made_later, "were taken before they were made"),
    (qc_without_blocks, "QC b-c/1: the journal has no block of it"),
    (old_epoch_again, "QC b-c/1: block 40 is of epoch 8, after which another has begun"),
    (one_loss_excuses_all, "bytes came of"),
    (loss_not_told, "node a, QC a-b/1: 24400 bytes came of 24800 that were made for it"),
    (loss_at_the_other_end, "node a, QC a-b/1: 24400 bytes came of 24800 that were made for it"),
    (loss_at_neither_end, "QC a-b/1: block 18 was given up for c, for which it was never made"),
    (older_blocks_never_came, "node c, QC b-c/1: block 36 never came, and the QC does not say that it was lost"),
    (older_blocks_never_came_and_no_end_is_told, "node c, QC b-c/1: block 36 never came"),
    (blocks_never_came_long_before_a_crash, "node c, QC b-c/1: block 11 never came"),
    (loss_twice, "QC a-b/1: block 18 was given up for a twice"),
    (loss_of_no_block, "QC a-b/1: block 700 was given up for a, for which it was never made"),
    (more_bytes_than_made, "node a, QC a-b/1: bytes came up to 25200, of 24800 that were made"),
    (fewer_bytes_than_made, "node a, QC a-b/1: block 69 never came, and the QC does not say that it was lost"),
    (head_in_a_block, "node b, QC a-b/1: bytes came up to 24395, where no block ends"),
    (bytes_from_nowhere, "node a, QC a-b/1: 24440 bytes came of 24400 that were made for it"),
    (bytes_to_nowhere, "node a, QC a-b/1: 24400 bytes came, but used, expired, stored and differing are not as many"),
    (bytes_called_differing, "node a, QC a-b/1: 40 bytes are counted as differing, and 0 are told of"),
    (differing_at_a_node_that_crashed, "node b, QC a-b/1: 4000 bytes are counted as differing, and 0 are told of"),
    (negative_bytes, "nodes.a.streams[0]: expired: expected a whole number from 0"),
    (balance_not_whole, "nodes.a.streams[0]: used: expected a whole number from 0"),
    (allocated_twice, "bytes from 800 were allocated to"),
    (allocated_and_never_made, "QC a-b/1 never made bytes"),
    (allocated_of_another_epoch, "of epoch 70"),
    (allocated_backwards, "QC a-b/1 never made bytes"),
    (allocated_of_nothing, "QC a-b/1 never made bytes"),
    (allocated_what_one_end_lacks, "never came to a"),
    (allocation_without_a_link, "its SAEs are not at the ends of the path"),
    (allocation_without_the_first_link, "its links are not one path of one node"),
    (allocation_of_another_node, "its SAEs are not at the ends of the path"),
    (allocation_of_two_nodes, "its links are not one path of one node"),
    (allocation_on_a_qc_of_others, "its QCs do not join up to a path from a"),
    (allocation_in_a_circle, "its QCs do not join up to a path from a"),
    (allocation_untold_long_after_a_crash, "allocation late: node b does not tell that it asked for it"),
    (allocation_untold_before_another_one, "allocation early: node b does not tell that it asked for it"),
    (allocations_untold_by_a_node_that_crashed, "node b does not tell that it asked for it"),
    (allocation_untold_that_its_node_used, "node a does not tell that it asked for it"),
    (allocation_that_was_refused, "node a does not say what became of it"),
    (allocation_for_nobody, "allocation nobody: given for no key"),
    (allocation_forgotten, "for which nothing was allocated"),
    (allocation_dearer_than_its_keys, "are not what 1 keys cost on these QCs in any mode"),
    (allocation_told_otherwise, "node a tells of other bytes than the shared database"),
    (allocation_asked_for_twice, "node a tells twice that it asked for it"),
    (taken_twice, "node a, QC a-b/1: bytes from 800 were taken twice (first from 800 to 816)"),
    (taken_for_another, "which was not given them"),
    (taken_without_allocation, "were taken for nobody, which was not given them"),
    (taken_from_another_epoch, "which was not given them"),
    (taken_on_a_qc_of_others, "were taken at neither end of the QC"),
    (taken_backwards, "were taken, and never made"),
    (taken_of_negative_length, "nodes.a: taken[0]: end: expected a whole number from 0"),
    (taken_of_no_length, "were taken, and never made"),
    (taken_before_it_was_made, "were taken before they were made"),
    (taken_when_too_old, "s old when they were taken, more than 20 slots"),
    (taken_when_too_old_for_a_smaller_ttl, "s old when they were taken, more than 2 slots"),
    (taken_out_of_order, "were taken before what was taken before them"),
    (taken_by_one_end_only, "its slave got it, and node b did not take its bytes on QC a-b/1"),
    (take_not_told, "node a, QC a-b/1: its journal tells of 16 bytes used for"),
    (use_not_told, "node c, QC b-c/1: its journal tells of 0 bytes used for"),
    (half_taken, "which is no whole share"),
    (different_halves_taken, "which is no whole share"),
    (slave_took_between_two_keys, "which is no whole share"),
    (relay_never_took, "and node b none on QC b-c/1"),
    (chain_that_left_out_a_relay, "and node b none on QC b-c/1"),
    (relay_at_once_took_one_pad, "and none on QC a-b/1"),
    (key_taken_as_pad, "were used as pad, which they were not given for"),
    (pad_taken_as_key, "were used as key, which they were not given for"),
    (pair_differs, "master and slave got different keys"),
    (two_ids_for_one_key, "are the same key"),
    (key_fetched_twice_by_the_slave, "its slave got it twice"),
    (key_fetched_twice_by_the_master, "its master got it twice"),
    (key_handed_out_twice, "node c handed it out twice (dec_keys)"),
    (key_of_one_master_handed_to_another, "handed it out (enc_keys) to an SAE that it was not made for"),
    (key_handed_out_when_too_old, "handed it out (dec_keys) when it was 30.2 s old, more than 20 slots"),
    (key_handed_out_elsewhere, "handed it out (dec_keys) to an SAE that it was not made for"),
    (key_handed_out_that_nobody_allocated, "key made up: node a handed it out (enc_keys), and nothing was allocated"),
    (pair_that_nobody_allocated, "key new: its master got it, and nothing was allocated for it"),
    (pair_without_a_journal, "handed it out (dec_keys), and its slave's journal lacks it"),
    (pair_without_its_allocation, "and nothing was allocated for it"),
    (key_of_another_pair, "its SAEs are not at the ends of the path"),
    (key_made_twice, "and before of another allocation"),
    (key_of_no_allocation, "key late: made of nothing, for which nothing was allocated"),
    (key_of_unknown_sae, "its SAEs are not at the ends of the path"),
    (key_got_in_another_session, "is not whom it was made for, or not in its session"),
    (key_got_by_the_wrong_side, "its slave got it twice"),
    (key_of_another_size, "master and slave got different keys"),
    (keys_of_another_size, "are not what 1 keys cost on these QCs in any mode"),
    (slave_has_no_key, "its master uses it, and its slave's journal has no such key"),
    (master_has_no_key, "its slave got it, and its master's journal has no such key"),
    (message_under_no_key, "and the journal has no such key"),
    (failure_of_the_master_not_told, "its slave got it, and its master's journal has no such key"),
    (session_of_two_pairs, "key session sae-a sae-b:"),
    (key_not_told_by_the_node, "its slave got it, and node c does not tell of it"),
    (loss_of_key_material_not_told, "node a does not say what became of it"),
    (half_of_a_loss_told, "bytes are told as lost, and"),
    (loss_of_what_was_never_given, "are told as lost for"),
    (loss_of_no_key, "are told as lost for"),
    (loss_of_a_key_that_was_handed_out, "handed it out, and tells of it as lost"),
    (loss_told_by_another_node, "are told as lost for"),
    (loss_of_a_key_that_its_master_got, "handed it out, and tells of it as lost"),
    (loss_over_two_hops_told_by_the_slaves_node, "are told as lost for"),
    (half_of_what_a_key_cost_told, "tells of some of what it cost, not of all"),
    (other_parts_than_the_keys, "are told as lost for"),
    (delivery_not_told, "node a does not say what became of it"),
]


def findings(run: Run) -> list[str]:
    """What the audit says of a run, also where it cannot go through with it."""
    try:
        return list(verdict(run).findings)
    except Unreadable as error:
        return [str(error)]


@pytest.mark.parametrize(
    ("falsify", "words"), FALSIFICATIONS, ids=[falsify.__name__ for falsify, _ in FALSIFICATIONS]
)
def test_falsification_is_found(falsify, words):
    """Each alone, in records that are sound otherwise."""
    run = played()
    falsify(run)

    found = findings(run)

    assert any(words in finding for finding in found), found
