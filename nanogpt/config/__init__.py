"""Settings: their schema, and how config.yaml becomes the settings of a run."""
