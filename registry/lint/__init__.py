"""Check what must hold in a book before it is used."""
