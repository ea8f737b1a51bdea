"""The gradients of n objectives for one group: from rows to G, and from weights to a direction."""
