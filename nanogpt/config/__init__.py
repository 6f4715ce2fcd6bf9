"""Settings: their schema, and the steps from config.yaml to the settings of a run."""
