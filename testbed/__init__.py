"""The emulation: Mininet network, QC emulators, load, measurements. Only this room knows the network is emulated."""
