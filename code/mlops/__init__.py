"""What the steps of the model side share: settings, data, gate, tracking and backends."""
