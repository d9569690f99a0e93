"""Everything that decides: pure functions over values, with the clock handed in and no I/O library imported."""
