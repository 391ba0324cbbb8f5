"""Classical traffic: routes, and switches that follow them."""
