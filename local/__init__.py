"""Everything that runs on an engineer's machine: the `signalbox` command and the stand-ins for the clouds."""
