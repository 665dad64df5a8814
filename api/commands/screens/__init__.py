"""Tables and views that commands print for people."""
