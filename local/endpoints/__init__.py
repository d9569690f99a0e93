"""Online endpoints on this machine: Azure ML's own scoring server behind a router that splits traffic."""
