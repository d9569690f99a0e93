"""The operators' commands: each reads its options, finds the state, and says what it sees or does."""
