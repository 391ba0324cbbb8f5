"""QC emulators, and the keys by which their ends compare what they hold."""
