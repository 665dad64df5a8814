"""HTML pages for operators, rendered on the server."""
