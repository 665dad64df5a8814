"""Pages in a headless browser: markup, contrast, screenshots."""
