"""Plans: what a run needs, and which results would be made, before anything is computed."""
