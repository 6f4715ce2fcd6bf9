"""Files that stages leave along with their results: records, manifests, cache entries, states."""
