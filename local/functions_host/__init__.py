"""The Azure Functions host on this machine, over the app's own v2 metadata."""
