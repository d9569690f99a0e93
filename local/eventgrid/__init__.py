"""Event Grid on this machine: a delivery engine that reads its subscriptions out of the ARM template."""
