"""Reports that compare runs: tables, charts, a web page, TensorBoard files."""
