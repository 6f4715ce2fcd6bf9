"""What a run takes, and what would be made, known before anything is computed."""
