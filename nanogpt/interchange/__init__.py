"""Import and export models and datasets in the formats of other programs."""
