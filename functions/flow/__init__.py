"""The protocols that move an event from intake to a confirmed dispatch, written against the ports in `ports`."""
