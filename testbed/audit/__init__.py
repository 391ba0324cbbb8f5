"""The audit of a run: replays its records and says whether the rules of key material were kept.

Records are compared that come from different places (`evidence`): what the run was meant to be, what the QCs made,
what the shared database allocated and for which keys, what each node took out of its local database, written in the
very transaction that erased the bytes, what became of each key, and the fingerprints that both SAEs of a key left.
None of them holds a key byte. What one of them says is checked wherever another one must know it, too; what is lacking
is a finding. The time that it takes grows with the length of the records and no faster (but for sorting).
"""

from testbed.audit.evidence import RECORDS, Unreadable
from testbed.audit.verdict import Verdict, load

__all__ = ["RECORDS", "Unreadable", "Verdict", "load"]
