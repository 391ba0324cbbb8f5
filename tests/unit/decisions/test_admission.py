"""Whether a key session may start."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from decisions.admission import ADMISSION_POLICIES, Claim, Demand, QcView, believed

views = st.lists(
    st.builds(
        QcView, st.sampled_from(["q1", "q2", "q3"]), st.integers(0, 1000), st.integers(0, 1000), st.integers(0, 1000),
        st.integers(0, 15), st.floats(0, 100),
    ),
    min_size=1, max_size=4, unique_by=lambda v: v.qc,
)  # fmt: skip
sizes = st.sampled_from([64, 128, 256, 512])


@given(views, sizes)
def test_equation_1_admits_when_the_tightest_qc_covers_one_key(path, size):
    """And a refusal names that QC, the key's bytes and what there is."""
    refused = ADMISSION_POLICIES["eq1"](path, Demand(size // 8, 5.0, [size / 8] * len(path)))
    left = {v.qc: v.generated_bytes - v.requested_bytes for v in path}

    if refused is None:
        assert min(left.values()) >= size // 8
    else:
        assert left[refused.qc] == min(left.values()) < refused.needed_bytes == size // 8
        assert refused.available_bytes == max(0, left[refused.qc])


@given(views, sizes, st.floats(0.5, 60))
def test_reserve_admits_when_every_qc_carries_all_that_is_declared(path, size, interval_s):
    """And a refusal names one that does not."""
    demand = Demand(size // 8, interval_s, [size / 4] + [size / 8] * (len(path) - 1))
    refused = ADMISSION_POLICIES["reserve"](path, demand)

    if refused is None:
        for hop, view in enumerate(path):
            slots = max(1, view.slots)
            assert (demand.per_slot(hop) + view.reserved_per_slot) * slots <= view.generated_bytes + 1e-6
    else:
        assert refused.needed_bytes > refused.available_bytes
        assert refused.qc in {v.qc for v in path}


def test_merit_is_the_rate_that_nobody_claims_and_then_the_stock():
    """Declared or used, whichever is more; over slots that were measured."""
    def merit(generated: int = 300, requested: int = 0, stored: int = 0, reserved: float = 0.0) -> tuple[float, int]:
        return QcView("q", generated, requested, stored, 3, reserved).merit

    assert merit() == (100.0, 0)
    assert merit(requested=30, reserved=2) == (90.0, 0)
    assert merit(requested=3, reserved=20, stored=7) == (80.0, 7)
    assert merit(reserved=1) > merit(reserved=2, stored=1000)
    assert merit(stored=8) > merit(stored=7)
    assert QcView("q", 0, 0, 5, 0, 3.0).merit == (-3.0, 5)


amounts = st.integers(0, 1000).map(Fraction)
claims = st.lists(st.builds(Claim, amounts, amounts), max_size=4)


@given(amounts, claims, amounts)
def test_no_claim_counts_beyond_what_was_declared_and_what_went(own, said, used):
    """All claims together, too; and what was declared counts in full, whatever others claim."""
    found = believed(own, said, used)

    declared = own + sum(min(claim.said, claim.declared) for claim in said)
    assert declared <= found <= max(declared, used)
    assert found <= own + sum(claim.said for claim in said)


@given(amounts, claims)
def test_of_honest_claims_all_counts(own, said):
    """Whatever was granted went; what was refused had been declared."""
    assert believed(own, said, used=own + sum(claim.said for claim in said)) == own + sum(claim.said for claim in said)
