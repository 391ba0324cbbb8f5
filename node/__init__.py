"""SD-QKD node: quantum module, key streams, relay, KME (GS QKD 014) and SDN agent; deployable beside real hardware."""
