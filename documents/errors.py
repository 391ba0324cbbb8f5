"""A document that breaks a standard's rule: which member, which clause, and what was expected."""

from __future__ import annotations


class Malformed(ValueError):
    """A received document is wrong. `field` names the member, `clause` the rule; the text is safe to send back."""

    def __init__(self, field: str, expected: str, *, clause: str = "", message: str | None = None) -> None:
        super().__init__(message or f"{field}: expected {expected}")
        self.field = field
        self.expected = expected
        self.clause = clause

    @property
    def details(self) -> dict[str, str]:
        """What the error body's `details` says."""
        facts = {"field": self.field, "expected": self.expected}
        return facts | ({"clause": self.clause} if self.clause else {})
