"""The live view: a page on this machine's loopback that shows a running network and lets an operator change it."""
