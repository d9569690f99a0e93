"""Azure ML: the only modules that import azure-ai-ml, and only when something really goes there."""
