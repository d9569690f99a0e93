"""The function app: what decides (`core`), the order of steps (`flow`), and the two outside worlds (`adapters`)."""
