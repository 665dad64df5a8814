"""The store's schema, one step per file. A step never changes once it has been released."""
