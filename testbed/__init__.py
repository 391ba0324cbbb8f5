"""The emulation: Mininet network, QC emulators, load, measurements. The only room that knows this is no real network."""
