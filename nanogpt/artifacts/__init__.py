"""What a stage of the workflow leaves: records, manifests, versions, cached artifacts, states."""
