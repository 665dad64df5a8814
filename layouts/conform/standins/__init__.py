"""Programs of child processes: foreign code runs here, compiled parts replaced."""
