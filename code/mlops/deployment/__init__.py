"""From a promoted version to all of the traffic, and back."""
