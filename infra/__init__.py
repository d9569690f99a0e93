"""Azure as code: the templates, and the steps that bring them there."""
