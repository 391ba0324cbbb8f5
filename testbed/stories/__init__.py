"""Stories of keys and key sessions, out of a run's journals: who said what to whom, and which ranges were used."""
