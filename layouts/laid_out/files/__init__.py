"""Files of a laid-out checkpoint: manifest, headers, writing and progress."""
