"""Plan what another book or AITER would change."""
